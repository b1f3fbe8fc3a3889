"""Claims and classes as the API knows them (resource.k8s.io/v1), as frozen values; `kube.codec` reads them from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from dra_driver.model.quantity import Quantity
from dra_driver.model.slices import NodeRequirement

ConfigSource: TypeAlias = Literal["FromClass", "FromClaim"]
AllocationMode: TypeAlias = Literal["ExactCount", "All"]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ClaimRef:
    """A claim, named: all that is left of it once the object is gone."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """Lets a request take tainted devices. An empty key with Exists matches every taint, an empty effect every effect."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str = ""
    effect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequest:
    """What one request (`exactly`), or one alternative of a `firstAvailable` request, asks for."""

    name: str
    device_class: str
    selectors: tuple[str, ...] = ()
    mode: AllocationMode = "ExactCount"
    count: int = 1
    admin_access: bool = False
    tolerations: tuple[Toleration, ...] = ()
    capacity: Mapping[str, Quantity] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """One entry of `spec.devices.requests`: `alternatives` has one member for `exactly`, several for firstAvailable."""

    name: str
    alternatives: tuple[DeviceRequest, ...]
    prioritized: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """Devices of `requests` (empty: of all) share the attribute (`match`), or differ in it (`distinct`)."""

    requests: tuple[str, ...] = ()
    match: str | None = None
    distinct: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpaqueConfig:
    """Parameters for one driver, for `requests` (empty: for all)."""

    driver: str
    parameters: Mapping[str, Any]
    requests: tuple[str, ...] = ()
    source: ConfigSource = "FromClaim"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClass:
    """What an administrator offers: CEL selectors that must all hold, and parameters that come along."""

    name: str
    selectors: tuple[str, ...] = ()
    config: tuple[OpaqueConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationResult:
    """One device given to one request. `request` is `main` or `main/sub`."""

    request: str
    driver: str
    pool: str
    device: str
    admin_access: bool = False
    share_id: str | None = None
    consumed_capacity: Mapping[str, Quantity] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    binding_conditions: tuple[str, ...] = ()
    binding_failure_conditions: tuple[str, ...] = ()

    @property
    def main_request(self) -> str:
        """The request as the kubelet knows it: without the chosen alternative."""
        return self.request.partition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """`status.allocation`. `node_selector` is None where the devices are usable everywhere."""

    results: tuple[AllocationResult, ...]
    config: tuple[OpaqueConfig, ...] = ()
    node_selector: tuple[NodeRequirement, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A ResourceClaim: what was asked, and, once allocated, what was given."""

    ref: ClaimRef
    requests: tuple[ClaimRequest, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    config: tuple[OpaqueConfig, ...] = ()
    allocation: Allocation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """One entry of `status.reservedFor`: who may use the claim. `resource` is a plural, in practice always `pods`."""

    resource: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatedClaim:
    """A ResourceClaim as the node sees it that prepares it: what was given and for whom, and nothing of what was asked.

    `allocation` is None as long as nothing is given, and says nothing of nodes and tolerations. `deleting`: it is going away
    as soon as nobody uses it.
    """

    ref: ClaimRef
    resource_version: str
    deleting: bool = False
    allocation: Allocation | None = None
    consumers: tuple[Consumer, ...] = ()
