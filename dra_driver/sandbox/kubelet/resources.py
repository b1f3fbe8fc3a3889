"""What a pod's status says of its devices: containerStatuses[].allocatedResourcesStatus (KEP-4680)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dra_driver.ports import JsonObject
from dra_driver.sandbox.kubelet.checkpoint import HeldClaim
from dra_driver.sandbox.kubelet.containers import used_devices
from dra_driver.sandbox.kubelet.health import NodeHealth

_FIELD = "allocatedResourcesStatus"


def with_health(
    statuses: Iterable[JsonObject],
    pod: JsonObject,
    claims: Mapping[str, HeldClaim],
    health: NodeHealth,
) -> list[JsonObject]:
    """The container statuses, each with the health of its container's devices now, and otherwise as they are."""
    containers = {container["name"]: container for container in pod["spec"]["containers"]}
    updated = []
    for status in statuses:
        resources = _resources(containers[status["name"]], claims, health) if health.shown else []
        others = {key: value for key, value in status.items() if key != _FIELD}
        updated.append(others | ({_FIELD: resources} if resources else {}))
    return updated


def _resources(
    container: JsonObject, claims: Mapping[str, HeldClaim], health: NodeHealth
) -> list[JsonObject]:
    """An entry for each claim, or request of one, that the container names and that has devices."""
    found = []
    for entry in container.get("resources", {}).get("claims", ()):
        request = entry.get("request")
        name = f"claim:{entry['name']}" + (f"/{request}" if request else "")
        if devices := _devices(entry, claims, health):
            found.append({"name": name, "resources": devices})
    return found


def _devices(
    entry: JsonObject, claims: Mapping[str, HeldClaim], health: NodeHealth
) -> list[JsonObject]:
    """Each device once, under the name of its first CDI device."""
    found: dict[str, JsonObject] = {}
    for driver, device in used_devices(entry, claims):
        name = next(iter(device.cdi_ids), f"{driver}/{device.pool}/{device.device}")
        report = health.of(driver, device.pool, device.device)
        shown = {"message": report.message} if report.message and health.messages_shown else {}
        found.setdefault(name, {"resourceID": name, "health": report.health, **shown})
    return list(found.values())
