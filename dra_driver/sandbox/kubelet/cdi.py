"""What CDI device IDs mean: the container runtime's half of the Container Device Interface, without a container."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from dra_driver.model.edits import ContainerEdits, DeviceNode, Mount
from dra_driver.model.errors import DraError
from dra_driver.ports import JsonObject

_log = structlog.get_logger()


class UnresolvableDevice(DraError):
    """No spec file defines the device."""

    reason = "UnresolvableDevice"


@dataclass(frozen=True, slots=True)
class CdiDevice:
    """One device of one spec file; `shared` are the edits that come with any device of that file."""

    spec: Path
    shared: ContainerEdits
    own: ContainerEdits


def resolve(ids: Iterable[str], folders: Sequence[Path]) -> ContainerEdits:
    """All edits of these devices, in order, each file's shared edits once; a later one replaces an earlier of the same name.

    Raises UnresolvableDevice for an ID that no file defines: a runtime refuses to create such a container.
    """
    known = read_devices(folders)
    edits: list[ContainerEdits] = []
    seen: set[Path] = set()
    for device_id in ids:
        device = known.get(device_id)
        if device is None:
            places = ", ".join(map(str, folders))
            raise UnresolvableDevice(
                f"unresolvable CDI device {device_id}: no spec file in {places} has it"
            )
        if device.spec not in seen:
            seen.add(device.spec)
            edits.append(device.shared)
        edits.append(device.own)
    return _merge(edits)


def read_devices(folders: Sequence[Path]) -> Mapping[str, CdiDevice]:
    """Every device of every *.json spec, by its fully qualified name; later folders win over earlier ones.

    A file that is no spec, or vanishes meanwhile, is skipped as runtimes do: nobody else's file keeps a pod from starting.
    """
    devices: dict[str, CdiDevice] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.json"))):
        try:
            devices |= _read_spec(path)
        except (OSError, ValueError, KeyError) as error:
            _log.warning("CDI spec skipped", path=str(path), error=repr(error))
    return devices


def _read_spec(path: Path) -> dict[str, CdiDevice]:
    spec = json.loads(path.read_text())
    shared = _edits(spec.get("containerEdits", {}))
    return {
        f"{spec['kind']}={device['name']}": CdiDevice(
            path, shared, _edits(device.get("containerEdits", {}))
        )
        for device in spec["devices"]
    }


def _edits(item: JsonObject) -> ContainerEdits:
    env = (variable.partition("=") for variable in item.get("env", ()))
    return ContainerEdits(
        env=tuple((name, value) for name, _, value in env),
        device_nodes=tuple(
            DeviceNode(
                path=node["path"],
                host_path=node.get("hostPath"),
                permissions=node.get("permissions", "rwm"),
            )
            for node in item.get("deviceNodes", ())
        ),
        mounts=tuple(
            Mount(
                host_path=mount["hostPath"],
                container_path=mount["containerPath"],
                options=tuple(mount.get("options", ())),
            )
            for mount in item.get("mounts", ())
        ),
    )


def _merge(edits: Sequence[ContainerEdits]) -> ContainerEdits:
    return ContainerEdits(
        env=tuple({name: value for one in edits for name, value in one.env}.items()),
        device_nodes=tuple(
            {node.path: node for one in edits for node in one.device_nodes}.values()
        ),
        mounts=tuple(
            {mount.container_path: mount for one in edits for mount in one.mounts}.values()
        ),
    )
