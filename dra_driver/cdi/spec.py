"""CDI specs (github.com/cncf-tags/container-device-interface, SPEC.md) as JSON, checked before anybody reads it.

A spec that a runtime finds wrong is ignored whole, and every container of the claim fails with nothing but "unresolvable
device"; so everything that a runtime, or a shell inside the container, could stumble over is refused here, by name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields

from dra_driver.model.edits import ContainerEdits, SharedEdits
from dra_driver.model.names import CDI_KIND, DRIVER_NAME, SHARED_CDI_KIND
from dra_driver.ports import JsonObject
from dra_driver.rules.container_edits import PRINTABLE, check_edits, demand

NOTE_ANNOTATION = f"{DRIVER_NAME}/record"

_ANNOTATIONS_LIMIT_BYTES = (
    256 * 1024
)  # as of an object's metadata; a spec with more is ignored whole
_SHARED_VARIABLE = "DRA_DRIVER_FILES"
_DEVICE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")


def claim_spec(devices: Sequence[tuple[str, ContainerEdits]], note: str = "") -> JsonObject:
    """The spec with one CDI device for each entry; NameInvalid names what a runtime would refuse.

    Edits that all devices share are written once, for the whole spec: whichever of the devices a container gets, it gets those.
    `note` becomes an annotation of the spec, which no runtime looks at and no container sees.
    """
    names = [name for name, _ in devices]
    demand(
        "CDI devices", repr(names), len(names) == len(set(names)) > 0, "at least one, all different"
    )
    for name, edits in devices:
        demand("CDI device", name, _DEVICE.fullmatch(name), "letters, digits and inner _ . : -")
        check_edits(edits)
        demand("edits of", name, edits != ContainerEdits(), "not empty")
    _check_note(note)
    common, own = _hoisted([edits for _, edits in devices])
    version = "0.6.0" if note else _lowest_version(devices)
    spec: JsonObject = {"cdiVersion": version, "kind": CDI_KIND}
    if note:
        spec["annotations"] = {NOTE_ANNOTATION: note}
    if common != ContainerEdits():
        spec["containerEdits"] = _edits(common)
    spec["devices"] = [
        {"name": name, "containerEdits": _edits(edits)}
        for name, edits in zip(names, own, strict=True)
    ]
    return spec


def shared_spec(shared: SharedEdits) -> JsonObject:
    """The spec with one CDI device for the edits; NameInvalid as for `claim_spec`.

    The edits are the spec's own, which a runtime applies once for a container, however often its device is asked for.
    The device itself, which CDI wants not to be empty, has a variable that names it.
    """
    demand("CDI device", shared.name, _DEVICE.fullmatch(shared.name), "letters, digits, _ . : -")
    check_edits(shared.edits)
    own = ContainerEdits(env=((_SHARED_VARIABLE, shared.name),))
    return {
        "cdiVersion": _lowest_version([(shared.name, shared.edits)]),
        "kind": SHARED_CDI_KIND,
        "containerEdits": _edits(shared.edits),
        "devices": [{"name": shared.name, "containerEdits": _edits(own)}],
    }


def _lowest_version(devices: Sequence[tuple[str, ContainerEdits]]) -> str:
    """0.5.0 brought device names that begin with a digit, and host paths of device nodes; other edits of ours are in 0.3.0."""
    digits = any(name[0].isdigit() for name, _ in devices)
    host_paths = any(node.host_path for _, edits in devices for node in edits.device_nodes)
    return "0.5.0" if digits or host_paths else "0.3.0"


def _hoisted(edits: Sequence[ContainerEdits]) -> tuple[ContainerEdits, list[ContainerEdits]]:
    """What all have in common, and what remains of each; nothing in common where it would leave one empty (CDI forbids that)."""
    if len(edits) == 1:
        return ContainerEdits(), list(edits)
    parts = [field.name for field in fields(ContainerEdits)]
    shared = {part: set.intersection(*(set(getattr(e, part)) for e in edits)) for part in parts}

    def sifted(one: ContainerEdits, *, common: bool) -> ContainerEdits:
        kept = {
            part: tuple(item for item in getattr(one, part) if (item in shared[part]) is common)
            for part in parts
        }
        return ContainerEdits(**kept)

    own = [sifted(one, common=False) for one in edits]
    if ContainerEdits() in own:
        return ContainerEdits(), list(edits)
    return sifted(edits[0], common=True), own


def _edits(edits: ContainerEdits) -> JsonObject:
    written: JsonObject = {}
    if edits.env:
        written["env"] = [f"{name}={value}" for name, value in edits.env]
    if edits.device_nodes:
        written["deviceNodes"] = [
            {"path": node.path}
            | ({"hostPath": node.host_path} if node.host_path else {})
            | ({"type": "c", "major": major, "minor": minor} if node.numbers else {})
            | {"permissions": node.permissions}
            for node in edits.device_nodes
            for major, minor in [node.numbers or (0, 0)]
        ]
    if edits.mounts:
        written["mounts"] = [
            {"hostPath": m.host_path, "containerPath": m.container_path, "options": list(m.options)}
            for m in edits.mounts
        ]
    if edits.hooks:
        written["hooks"] = [
            {"hookName": hook.name, "path": hook.path, "args": list(hook.args)}
            | ({"env": [f"{name}={value}" for name, value in hook.env]} if hook.env else {})
            for hook in edits.hooks
        ]
    return written


def _check_note(note: str) -> None:
    demand("note", note[:80], PRINTABLE.fullmatch(note), "printable ASCII")
    size_bytes = len(NOTE_ANNOTATION) + len(note)
    fits = size_bytes <= _ANNOTATIONS_LIMIT_BYTES
    demand(
        "note of bytes", str(size_bytes), fits, f"at most {_ANNOTATIONS_LIMIT_BYTES} with its name"
    )
