"""A claim's CDI spec (github.com/cncf-tags/container-device-interface, SPEC.md) as JSON, checked before anybody reads it.

A spec that a runtime finds wrong is ignored whole, and every container of the claim fails with nothing but "unresolvable
device"; so everything that a runtime, or a shell inside the container, could stumble over is refused here, by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from dra_driver.model.edits import ContainerEdits
from dra_driver.model.errors import NameInvalid
from dra_driver.model.names import CDI_KIND, DRIVER_NAME
from dra_driver.ports import JsonObject

NOTE_ANNOTATION = f"{DRIVER_NAME}/record"

_ANNOTATIONS_LIMIT_BYTES = (
    256 * 1024
)  # as of an object's metadata; a spec with more is ignored whole
_DEVICE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_PRINTABLE = re.compile(r"[ -~]*")
_PERMISSIONS = re.compile(r"[rwm]{1,3}")
_OPTION = re.compile(r"[a-z][a-z0-9=_-]*")


def claim_spec(devices: Sequence[tuple[str, ContainerEdits]], note: str = "") -> JsonObject:
    """The spec with one CDI device for each entry; NameInvalid names what a runtime would refuse.

    Edits that all devices share are written once, for the whole spec: whichever of the devices a container gets, it gets those.
    `note` becomes an annotation of the spec, which no runtime looks at and no container sees.
    """
    names = [name for name, _ in devices]
    _check(
        "CDI devices", repr(names), len(names) == len(set(names)) > 0, "at least one, all different"
    )
    for name, edits in devices:
        _check("CDI device", name, _DEVICE.fullmatch(name), "letters, digits and inner _ . : -")
        _check_edits(edits)
        _check("edits of", name, edits != ContainerEdits(), "not empty")
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


def _lowest_version(devices: Sequence[tuple[str, ContainerEdits]]) -> str:
    """0.5.0 brought device names that begin with a digit, and host paths of device nodes; other edits of ours are in 0.3.0."""
    digits = any(name[0].isdigit() for name, _ in devices)
    host_paths = any(node.host_path for _, edits in devices for node in edits.device_nodes)
    return "0.5.0" if digits or host_paths else "0.3.0"


def _hoisted(edits: Sequence[ContainerEdits]) -> tuple[ContainerEdits, list[ContainerEdits]]:
    """What all have in common, and what remains of each; nothing in common where it would leave one empty (CDI forbids that)."""
    first, *others = edits
    common = ContainerEdits(
        env=tuple(pair for pair in first.env if all(pair in e.env for e in others)),
        device_nodes=tuple(
            n for n in first.device_nodes if all(n in e.device_nodes for e in others)
        ),
        mounts=tuple(m for m in first.mounts if all(m in e.mounts for e in others)),
    )
    own = [
        replace(
            e,
            env=tuple(pair for pair in e.env if pair not in common.env),
            device_nodes=tuple(n for n in e.device_nodes if n not in common.device_nodes),
            mounts=tuple(m for m in e.mounts if m not in common.mounts),
        )
        for e in edits
    ]
    if ContainerEdits() in own:
        return ContainerEdits(), list(edits)
    return common, own


def _edits(edits: ContainerEdits) -> JsonObject:
    written: JsonObject = {}
    if edits.env:
        written["env"] = [f"{name}={value}" for name, value in edits.env]
    if edits.device_nodes:
        written["deviceNodes"] = [
            {"path": node.path}
            | ({"hostPath": node.host_path} if node.host_path else {})
            | {"permissions": node.permissions}
            for node in edits.device_nodes
        ]
    if edits.mounts:
        written["mounts"] = [
            {"hostPath": m.host_path, "containerPath": m.container_path, "options": list(m.options)}
            for m in edits.mounts
        ]
    return written


def _check_note(note: str) -> None:
    _check("note", note[:80], _PRINTABLE.fullmatch(note), "printable ASCII")
    size_bytes = len(NOTE_ANNOTATION) + len(note)
    fits = size_bytes <= _ANNOTATIONS_LIMIT_BYTES
    _check(
        "note of bytes", str(size_bytes), fits, f"at most {_ANNOTATIONS_LIMIT_BYTES} with its name"
    )


def _check_edits(edits: ContainerEdits) -> None:
    for name, value in edits.env:
        _check("environment variable", name, _VARIABLE.fullmatch(name), "A-Z, 0-9 and _")
        _check(f"value of {name}", value, _PRINTABLE.fullmatch(value), "printable ASCII")
    for node in edits.device_nodes:
        _check_paths((node.path, node.host_path or node.path))
        allowed = _PERMISSIONS.fullmatch(node.permissions)
        _check(f"permissions of {node.path}", node.permissions, allowed, "some of r, w and m")
    for mount in edits.mounts:
        _check_paths((mount.host_path, mount.container_path))
        for option in mount.options:
            allowed = _OPTION.fullmatch(option)
            _check(
                f"mount option of {mount.container_path}", option, allowed, "like ro or mode=0755"
            )


def _check_paths(paths: Iterable[str]) -> None:
    for path in paths:
        plain = path.startswith("/") and "/../" not in f"{path}/"
        _check(
            "path", path, plain and _PRINTABLE.fullmatch(path), "absolute, printable, without .."
        )


def _check(what: str, value: str, holds: object, rule: str) -> None:
    if not holds:
        raise NameInvalid(f"{what} {value!r} cannot be written into a CDI spec: it must be {rule}")
