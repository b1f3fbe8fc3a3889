"""What each container of a pod would find inside: the sandbox's answer to "did my pod get the right device?"."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dra_driver.model.edits import ContainerEdits
from dra_driver.model.record import PreparedDevice
from dra_driver.ports import JsonObject
from dra_driver.sandbox.kubelet.cdi import resolve
from dra_driver.sandbox.kubelet.checkpoint import HeldClaim


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerView:
    """One container: the CDI devices that the kubelet hands to the runtime, and what the runtime makes of them."""

    name: str
    cdi_devices: tuple[str, ...]
    edits: ContainerEdits


class PodViews:
    """`<folder>/<namespace>_<pod>.json`, one file for each pod that runs; its keys are CDI's."""

    def __init__(self, folder: Path, cdi_folders: Sequence[Path]) -> None:
        self._folder = folder
        self._cdi_folders = cdi_folders

    def write(self, pod: JsonObject, claims: Mapping[str, HeldClaim]) -> None:
        """Resolve every container of the pod. Raises UnresolvableDevice where a container could not be created."""
        metadata = pod["metadata"]
        containers = [self._view(container, claims) for container in containers_of(pod)]
        content = {
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "containers": [_view_to_json(view) for view in containers],
        }
        self._path(pod).write_text(json.dumps(content, indent=1))

    def remove(self, pod: JsonObject) -> None:
        """The pod runs no more."""
        self._path(pod).unlink(missing_ok=True)

    def _view(self, container: JsonObject, claims: Mapping[str, HeldClaim]) -> ContainerView:
        ids = cdi_devices(container, claims)
        edits = resolve(ids, self._cdi_folders)
        return ContainerView(name=container["name"], cdi_devices=ids, edits=edits)

    def _path(self, pod: JsonObject) -> Path:
        metadata = pod["metadata"]
        return self._folder / f"{metadata['namespace']}_{metadata['name']}.json"


def containers_of(pod: JsonObject) -> list[JsonObject]:
    """Init containers first, as they run."""
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def cdi_devices(container: JsonObject, claims: Mapping[str, HeldClaim]) -> tuple[str, ...]:
    """The IDs for this container: of the claims that it names, and of these, where it names a request, only that one's.

    A device without request names belongs to every request.
    """
    ids: dict[str, None] = {}
    for entry in container.get("resources", {}).get("claims", ()):
        for _, device in used_devices(entry, claims):
            ids.update(dict.fromkeys(device.cdi_ids))
    return tuple(ids)


def used_devices(
    entry: JsonObject, claims: Mapping[str, HeldClaim]
) -> Iterator[tuple[str, PreparedDevice]]:
    """Driver and device, for each that one entry of a container's `resources.claims` gives it."""
    claim, request = claims.get(entry["name"]), entry.get("request")
    for driver, devices in claim.devices.items() if claim else ():
        for device in devices:
            if not request or not device.requests or request in device.requests:
                yield driver, device


def _view_to_json(view: ContainerView) -> JsonObject:
    nodes, mounts = view.edits.device_nodes, view.edits.mounts
    return {
        "name": view.name,
        "cdiDevices": list(view.cdi_devices),
        "env": dict(view.edits.env),
        "deviceNodes": [
            {"path": n.path, "hostPath": n.host_path or n.path, "permissions": n.permissions}
            for n in nodes
        ],
        "mounts": [
            {"hostPath": m.host_path, "containerPath": m.container_path, "options": list(m.options)}
            for m in mounts
        ],
    }
