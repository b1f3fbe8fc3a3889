"""A ResourceClaim's status: what schedulers, the claim controller and drivers may write."""

from __future__ import annotations

from typing import Final, TypeAlias

from dra_driver.model.names import is_dns_label, is_dns_subdomain, is_pool_name
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.objects import inside, is_terminating
from dra_driver.sandbox.apiserver.validation.findings import DNS_LABEL, DNS_SUBDOMAIN, Findings

DeviceId: TypeAlias = tuple[str | None, ...]
"""Driver, pool, device, share."""

_RESULTS: Final = 32
_ALLOCATION_CONFIGS: Final = 64
_RESERVED_FOR: Final = 256
_CONDITIONS: Final = 8


def device_id(entry: JsonObject) -> DeviceId:
    """What names the device of an allocation result or of a status.devices entry."""
    return tuple(entry.get(field) for field in ("driver", "pool", "device", "shareID"))


def allocated(claim: JsonObject | None) -> frozenset[DeviceId]:
    """All devices of the claim's allocation."""
    results = inside(claim, "status", "allocation", "devices", "results") or ()
    return frozenset(map(device_id, results))


def validate_claim_status(new: JsonObject, old: JsonObject, found: Findings) -> None:
    """Allocation, reservations and device status, and how they may change."""
    allocation = inside(new, "status", "allocation")
    before = inside(old, "status", "allocation")
    if before is not None and allocation is not None and allocation != before:
        found.invalid("status.allocation", None, "field cannot be modified once set")
    if allocation is not None:
        _validate_allocation(new, allocation, found)
    _validate_reservations(new, old, found)
    _validate_devices(new, found)


def _validate_allocation(claim: JsonObject, allocation: JsonObject, found: Findings) -> None:
    path = "status.allocation.devices"
    devices = allocation.get("devices", {})
    results, configs = devices.get("results", []), devices.get("config", [])
    found.bound(f"{path}.results", results, _RESULTS)
    found.bound(f"{path}.config", configs, _ALLOCATION_CONFIGS)
    requests = inside(claim, "spec", "devices", "requests") or ()
    names = {one["name"] for one in requests}
    for index, result in enumerate(results):
        here = f"{path}.results[{index}]"
        if result.get("request", "").partition("/")[0] not in names:
            why = "must be the name of a request in the claim"
            found.invalid(f"{here}.request", result.get("request", ""), why)
        found.check(f"{here}.driver", result.get("driver", ""), is_dns_subdomain, DNS_SUBDOMAIN)
        found.check(f"{here}.pool", result.get("pool", ""), is_pool_name, DNS_SUBDOMAIN)
        found.check(f"{here}.device", result.get("device", ""), is_dns_label, DNS_LABEL)
    for index, config in enumerate(configs):
        if config.get("source") not in {"FromClass", "FromClaim"}:
            where = f"{path}.config[{index}].source"
            found.unsupported(where, config.get("source", ""), ("FromClaim", "FromClass"))


def _validate_reservations(new: JsonObject, old: JsonObject, found: Findings) -> None:
    path = "status.reservedFor"
    reserved = inside(new, "status", "reservedFor") or []
    found.bound(path, reserved, _RESERVED_FOR)
    found.unique(path, [one.get("uid", "") for one in reserved])
    for index, consumer in enumerate(reserved):
        for field in ("resource", "name", "uid"):
            if not consumer.get(field):
                found.required(f"{path}[{index}].{field}")
    if reserved and inside(new, "status", "allocation") is None:
        found.forbidden(path, "may not be specified when `allocated` is not set")
    before = {one.get("uid") for one in inside(old, "status", "reservedFor") or ()}
    if is_terminating(new) and any(one.get("uid") not in before for one in reserved):
        found.forbidden(path, "new entries may not be added while `deletionTimestamp` is set")


def _validate_devices(new: JsonObject, found: Findings) -> None:
    known = allocated(new)
    devices = inside(new, "status", "devices") or []
    found.unique("status.devices", [str(device_id(one)) for one in devices])
    for index, device in enumerate(devices):
        path = f"status.devices[{index}]"
        if device_id(device) not in known:
            found.invalid(path, device_id(device), "must be an allocated device in the claim")
        found.bound(f"{path}.conditions", device.get("conditions", []), _CONDITIONS)
