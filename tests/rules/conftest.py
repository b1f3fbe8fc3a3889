from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import pytest

from dra_driver.model.claim import (
    Allocation,
    AllocationResult,
    Claim,
    ClaimRef,
    ClaimRequest,
    DeviceClass,
    DeviceRequest,
)
from dra_driver.model.quantity import Quantity
from dra_driver.model.slices import (
    Capacity,
    CounterConsumption,
    CounterSet,
    Device,
    NodePlace,
    PoolRef,
    ResourceSlice,
)
from dra_driver.rules.allocate import Allocated, AllocationError, Cluster, NodeInfo, allocate


class TinyMatcher:
    """Selectors are `attribute=value`; the device must have the attribute. Remembers which devices it saw."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def matches(self, expressions: Sequence[str], device: Device, driver: str) -> bool:
        if expressions:
            self.seen.append(device.name)
        return all(self._holds(expression, device) for expression in expressions)

    @staticmethod
    def _holds(expression: str, device: Device) -> bool:
        name, _, wanted = expression.partition("=")
        if name not in device.attributes:
            raise AllocationError(f"{device.name} has no {name}")
        return str(device.attributes[name]) == wanted


class World:
    """One node `n1`, a class `any`, and what a test adds; names of driver and pool are `d` and `p` unless given."""

    def __init__(self) -> None:
        self.node = NodeInfo(name="n1", labels={"zone": "a", "size": "8"})
        self.classes = {"any": DeviceClass(name="any")}
        self.slices: list[ResourceSlice] = []
        self.claims: list[Claim] = []
        self.held: list[AllocationResult] = []
        self.matcher: Any = TinyMatcher()

    def publish(
        self, *devices: str | Device, name: str = "s", pool: str = "p", **more: Any
    ) -> None:
        """Add a slice; `of` is how many its pool has."""
        self.slices.append(
            ResourceSlice(
                name=name,
                driver=more.pop("driver", "d"),
                pool=PoolRef(
                    name=pool, generation=more.pop("generation", 1), slice_count=more.pop("of", 1)
                ),
                place=more.pop("place", NodePlace(node_name="n1")),
                devices=tuple(Device(name=d) if isinstance(d, str) else d for d in devices),
                **more,
            )
        )

    def publish_counters(self, sets: Mapping[str, Mapping[str, int]], **more: Any) -> None:
        counter_sets = tuple(
            CounterSet(name=name, counters={c: Quantity.of(n) for c, n in counters.items()})
            for name, counters in sets.items()
        )
        self.publish(name="counters", shared_counters=counter_sets, **more)

    @staticmethod
    def partition(name: str, /, counter_set: str = "set", **counters: int) -> Device:
        amounts = {counter: Quantity.of(number) for counter, number in counters.items()}
        return Device(
            name=name, consumes=(CounterConsumption(counter_set=counter_set, counters=amounts),)
        )

    @staticmethod
    def shared(name: str, **more: Any) -> Device:
        """A multi-allocatable device; `memory` and other capacities as text, or as Capacity."""
        capacity = {
            key: value if isinstance(value, Capacity) else Capacity(value=Quantity.parse(value))
            for key, value in more.items()
        }
        return Device(name=name, allow_multiple_allocations=True, capacity=capacity)

    @staticmethod
    def request(name: str = "r", **more: Any) -> ClaimRequest:
        """Exactly one device of class `any`, unless said otherwise; capacities as text."""
        more["capacity"] = {k: Quantity.parse(v) for k, v in more.pop("capacity", {}).items()}
        device_class = more.pop("device_class", "any")
        exactly = DeviceRequest(name=name, device_class=device_class, **more)
        return ClaimRequest(name=name, alternatives=(exactly,))

    @classmethod
    def first_available(cls, name: str, *requests: ClaimRequest) -> ClaimRequest:
        alternatives = tuple(alternative for r in requests for alternative in r.alternatives)
        return ClaimRequest(name=name, alternatives=alternatives, prioritized=True)

    def ask(self, *requests: ClaimRequest, **more: Any) -> None:
        """Add a claim `c<n>` of the pod."""
        name = f"c{len(self.claims)}"
        ref = ClaimRef(namespace="ns", name=name, uid=f"uid-{name}")
        self.claims.append(Claim(ref=ref, requests=requests or (self.request(),), **more))

    def hold(self, *devices: str, pool: str = "p", driver: str = "d", **more: Any) -> None:
        """Have another pod's claim hold the devices."""
        consumed = {k: Quantity.parse(v) for k, v in more.pop("consumed", {}).items()}
        self.held += [
            AllocationResult(
                request="r",
                driver=driver,
                pool=pool,
                device=device,
                consumed_capacity=consumed,
                **more,
            )
            for device in devices
        ]

    def allocate(self) -> Any:
        """The allocator's answer; share IDs are `share-1`, `share-2` and so on."""
        other = ClaimRef(namespace="ns", name="other", uid="uid-other")
        holder = Claim(ref=other, allocation=Allocation(results=tuple(self.held)))
        numbers = count(1)
        return allocate(
            self.claims,
            self.node,
            Cluster(classes=self.classes, slices=self.slices, allocated=Allocated.of([holder])),
            matcher=self.matcher,
            new_share_id=lambda: f"share-{next(numbers)}",
        )

    def results(self) -> list[AllocationResult]:
        """All claims' results, in order; the test fails here if the allocator refuses."""
        answer = self.allocate()
        assert isinstance(answer, tuple), str(answer)
        return [result for allocation in answer for result in allocation.results]

    def devices(self) -> list[str]:
        return [result.device for result in self.results()]

    def refusal(self) -> str:
        """What the allocator says instead of an allocation; the test fails here if it allocates."""
        answer = self.allocate()
        assert not isinstance(answer, tuple), answer
        return str(answer)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def new_world() -> type[World]:
    """For property tests, which need a world per example."""
    return World
