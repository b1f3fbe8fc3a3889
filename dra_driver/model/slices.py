"""Devices as the API knows them (resource.k8s.io/v1 ResourceSlice): what we publish, and what an allocator reads.

Field for field the API's shapes, as frozen values; `kube.codec` turns them into JSON and back. Attribute and capacity
names are kept as written: a name without a domain belongs to the slice's driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from dra_driver.model.quantity import Quantity


@dataclass(frozen=True, slots=True)
class Version:
    """A strict semantic version (semver 2.0.0), as attributes of type `version` hold it."""

    text: str

    def __str__(self) -> str:
        return self.text


AttributeValue: TypeAlias = bool | int | str | Version
TaintEffect: TypeAlias = Literal["None", "NoSchedule", "NoExecute"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPolicy:
    """How much a request may take of a shared capacity: `valid_values`, or a range, or the default alone."""

    default: Quantity | None = None
    valid_values: tuple[Quantity, ...] = ()
    range_min: Quantity | None = None
    range_max: Quantity | None = None
    range_step: Quantity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """An amount that a device has; `policy` only on devices that may be allocated more than once."""

    value: Quantity
    policy: RequestPolicy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterSet:
    """Amounts that the devices of one pool share (KEP-4815)."""

    name: str
    counters: Mapping[str, Quantity]


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterConsumption:
    """What one device takes from one counter set while it is allocated."""

    counter_set: str
    counters: Mapping[str, Quantity]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """Keeps claims that do not tolerate it away from a device (KEP-5055). `time_added` is RFC 3339."""

    key: str
    value: str = ""
    effect: TaintEffect = "NoSchedule"
    time_added: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRequirement:
    """One `matchExpressions` (or, with `field`, `matchFields`) entry of a node selector term."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: tuple[str, ...] = ()
    field: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlace:
    """Where devices are reachable: exactly one of the three (or none, on a device whose slice says it)."""

    node_name: str | None = None
    node_selector: tuple[NodeRequirement, ...] | None = None
    all_nodes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One allocatable device of a pool."""

    name: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    capacity: Mapping[str, Capacity] = field(default_factory=dict)
    consumes: tuple[CounterConsumption, ...] = ()
    taints: tuple[Taint, ...] = ()
    allow_multiple_allocations: bool = False
    place: NodePlace = NodePlace()
    binds_to_node: bool = False
    binding_conditions: tuple[str, ...] = ()
    binding_failure_conditions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRef:
    """Which pool a slice belongs to, in which generation, and how many slices make it complete."""

    name: str
    generation: int
    slice_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSlice:
    """A part of a pool: devices, or counter sets, never both (Kubernetes 1.35 and newer)."""

    name: str
    driver: str
    pool: PoolRef
    place: NodePlace
    per_device_node_selection: bool = False
    devices: tuple[Device, ...] = ()
    shared_counters: tuple[CounterSet, ...] = ()
