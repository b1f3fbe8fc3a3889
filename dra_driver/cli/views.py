"""What `dra get` shows of devices, claims, slices and nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dra_driver.cli.printers import Column, View, age
from dra_driver.model.kinds import RESOURCE_CLAIM, RESOURCE_SLICE, Kind
from dra_driver.model.names import DRIVER_NAME
from dra_driver.model.slices import Taint, Version
from dra_driver.ports import JsonObject
from dra_driver.rules.usage import DeviceUse, GpuCount

DEVICE_API_VERSION = f"{DRIVER_NAME}/v1alpha1"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """A Node object, and what we know of its GPUs."""

    node: JsonObject
    gpus: GpuCount


def devices_view() -> View[DeviceUse]:
    """Devices; names are `device.<driver>/<pool>/<device>`, because nodes have devices of equal names."""
    return View(
        columns=(
            Column("NAME", lambda use: use.device.name),
            Column("NODE", lambda use: use.node or ""),
            Column("TYPE", lambda use: _attribute(use, "type")),
            Column("PROFILE", lambda use: _attribute(use, "profile")),
            Column("MEMORY", _memory),
            Column("SHARING", lambda use: _attribute(use, "sharing")),
            Column("STATE", lambda use: use.state.value),
            Column("CLAIM", lambda use: _joined(use.claims)),
            Column("POOL", lambda use: use.pool, only_wide=True),
            Column("PRODUCT", lambda use: _attribute(use, "productName"), only_wide=True),
            Column("UUID", lambda use: _attribute(use, "uuid"), only_wide=True),
            Column("FOREIGN", lambda use: _attribute(use, "foreign").lower(), only_wide=True),
            Column("TAINTS", lambda use: _joined(map(_taint, use.device.taints)), only_wide=True),
        ),
        to_object=_device_object,
        to_name=lambda use: f"device.{DRIVER_NAME}/{use.pool}/{use.device.name}",
        list_api_version=DEVICE_API_VERSION,
        list_kind="DeviceList",
    )


def claims_view(now: datetime, *, with_namespace: bool) -> View[JsonObject]:
    """ResourceClaims, with the devices they hold."""
    namespace: Column[JsonObject] = Column("NAMESPACE", lambda item: item["metadata"]["namespace"])
    return _api_view(
        RESOURCE_CLAIM,
        *((namespace,) if with_namespace else ()),
        Column("NAME", _name),
        Column("STATE", _claim_state),
        Column("DEVICES", lambda claim: _joined(r["device"] for r in _results(claim))),
        Column("AGE", lambda item: _age(item, now)),
        Column("POOLS", lambda c: _joined({r["pool"]: 0 for r in _results(c)}), only_wide=True),
        Column("CLASSES", lambda claim: _joined(_classes(claim)), only_wide=True),
        Column("RESERVED-FOR", lambda claim: _joined(_consumers(claim)), only_wide=True),
    )


def slices_view(now: datetime) -> View[JsonObject]:
    """ResourceSlices, with how much is in them."""
    return _api_view(
        RESOURCE_SLICE,
        Column("NAME", _name),
        Column("NODE", lambda item: item["spec"].get("nodeName", "")),
        Column("POOL", lambda item: item["spec"]["pool"]["name"]),
        Column("DEVICES", lambda item: str(len(item["spec"].get("devices", ())))),
        Column("COUNTER-SETS", lambda item: str(len(item["spec"].get("sharedCounters", ())))),
        Column("AGE", lambda item: _age(item, now)),
        Column("GENERATION", lambda item: str(item["spec"]["pool"]["generation"]), only_wide=True),
        Column(
            "POOL-SLICES",
            lambda item: str(item["spec"]["pool"]["resourceSliceCount"]),
            only_wide=True,
        ),
    )


def nodes_view(now: datetime) -> View[NodeRow]:
    """Nodes, with how many GPUs they have and use."""
    return View(
        columns=(
            Column("NAME", lambda row: _name(row.node)),
            Column("STATUS", lambda row: _node_status(row.node)),
            Column("GPUS", lambda row: str(row.gpus.gpus)),
            Column("IN-USE", lambda row: str(row.gpus.in_use)),
            Column("AGE", lambda row: _age(row.node, now)),
            Column("VERSION", lambda row: _kubelet_version(row.node), only_wide=True),
        ),
        to_object=lambda row: row.node,
        to_name=lambda row: f"node/{_name(row.node)}",
    )


def _name(item: JsonObject) -> str:
    return str(item["metadata"]["name"])


def _age(item: JsonObject, now: datetime) -> str:
    return age(item["metadata"].get("creationTimestamp"), now)


def _api_view(kind: Kind, *columns: Column[JsonObject]) -> View[JsonObject]:
    """Objects of the API show themselves; their names are kubectl's: `resourceclaim.resource.k8s.io/<name>`."""
    return View(
        columns=columns,
        to_object=lambda item: item,
        to_name=lambda item: f"{kind.kind.lower()}.{kind.group}/{_name(item)}",
    )


def _joined(items: Iterable[object]) -> str:
    return ",".join(map(str, items))


def _attribute(use: DeviceUse, name: str) -> str:
    return str(use.device.attributes.get(name, ""))


def _memory(use: DeviceUse) -> str:
    capacity = use.device.capacity.get("memory")
    return str(capacity.value) if capacity else ""


def _taint(taint: Taint) -> str:
    value = f"={taint.value}" if taint.value else ""
    return f"{taint.key}{value}:{taint.effect}"


def _device_object(use: DeviceUse) -> JsonObject:
    """One item of the documented DeviceList (docs/user/cli.md)."""
    device = use.device
    return {
        "apiVersion": DEVICE_API_VERSION,
        "kind": "Device",
        "name": device.name,
        "pool": use.pool,
        "nodeName": use.node,
        "state": use.state.value,
        "claims": [{"namespace": c.namespace, "name": c.name, "uid": c.uid} for c in use.claims],
        "attributes": {
            name: value.text if isinstance(value, Version) else value
            for name, value in device.attributes.items()
        },
        "capacity": {name: str(capacity.value) for name, capacity in device.capacity.items()},
        "taints": [
            {"key": taint.key, "value": taint.value, "effect": taint.effect}
            for taint in device.taints
        ],
    }


def _status(claim: JsonObject) -> dict[str, Any]:
    return claim.get("status") or {}


def _results(claim: JsonObject) -> list[JsonObject]:
    allocation = _status(claim).get("allocation") or {}
    return (allocation.get("devices") or {}).get("results") or []


def _claim_state(claim: JsonObject) -> str:
    """As kubectl says it."""
    words = ["deleted"] if claim["metadata"].get("deletionTimestamp") else []
    if _status(claim).get("allocation") is None:
        return ",".join([*words, "pending"])
    return ",".join(
        [*words, "allocated", *(["reserved"] if _status(claim).get("reservedFor") else [])]
    )


def _classes(claim: JsonObject) -> Iterable[str]:
    for request in claim["spec"].get("devices", {}).get("requests", ()):
        for exact in request.get("firstAvailable") or [request.get("exactly") or {}]:
            yield exact.get("deviceClassName", "")


def _consumers(claim: JsonObject) -> Iterable[str]:
    for consumer in _status(claim).get("reservedFor") or ():
        yield f"{consumer['resource']}/{consumer['name']}"


def _node_status(node: JsonObject) -> str:
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    cordoned = (node.get("spec") or {}).get("unschedulable")
    return ("Ready" if ready else "NotReady") + (",SchedulingDisabled" if cordoned else "")


def _kubelet_version(node: JsonObject) -> str:
    info = (node.get("status") or {}).get("nodeInfo") or {}
    return str(info.get("kubeletVersion", ""))
