"""Shares of devices that may be allocated more than once (k8s-dra.md 5.6, KEP-5075)."""

from __future__ import annotations

from typing import Any

import pytest

from dra_driver.model.claim import Constraint
from dra_driver.model.quantity import Quantity
from dra_driver.model.slices import Capacity, Device, RequestPolicy


def quantities(*texts: str) -> tuple[Quantity, ...]:
    return tuple(Quantity.parse(text) for text in texts)


def governed(value: str, **policy: Any) -> Capacity:
    fields: dict[str, Any] = {
        k: quantities(*v) if k == "valid_values" else Quantity.parse(v) for k, v in policy.items()
    }
    return Capacity(value=Quantity.parse(value), policy=RequestPolicy(**fields))


RANGE = {"default": "20", "range_min": "10", "range_step": "5", "range_max": "40"}


def consumed(world: Any) -> list[dict[str, str]]:
    return [{k: str(v) for k, v in r.consumed_capacity.items()} for r in world.results()]


def test_shares_of_a_device_add_up(world: Any) -> None:
    """Claims share a device as long as its capacity lasts, each with a share ID and what it consumes."""
    world.publish(world.shared("gpu", memory="80Gi"))
    for _ in range(2):
        world.ask(world.request(capacity={"memory": "30Gi"}))
    assert [(r.device, r.share_id) for r in world.results()] == [
        ("gpu", "share-1"),
        ("gpu", "share-2"),
    ]
    assert consumed(world) == [{"memory": "30Gi"}] * 2
    world.ask(world.request(capacity={"memory": "30Gi"}))
    assert "not all together" in world.refusal()


def test_committed_shares_count(world: Any) -> None:
    """What other claims consume is gone."""
    world.publish(world.shared("gpu", memory="80Gi"))
    world.hold("gpu", share_id="s1", consumed={"memory": "40Gi"})
    world.hold("gpu", share_id="s2", consumed={"memory": "20Gi"})
    world.ask(world.request(capacity={"memory": "20Gi"}))
    assert world.devices() == ["gpu"]
    world.claims.clear()
    world.ask(world.request(capacity={"memory": "21Gi"}))
    assert "1 out of capacity (memory)" in world.refusal()


def test_without_a_policy_the_full_value_is_taken(world: Any) -> None:
    """A request that says nothing takes all of it."""
    world.publish(world.shared("gpu", memory="80Gi"))
    world.ask()
    assert consumed(world) == [{"memory": "80Gi"}]


def test_the_policys_default_is_taken(world: Any) -> None:
    """A request that says nothing takes the default, even zero."""
    world.publish(
        world.shared("gpu", memory=governed("80", **RANGE), slots=governed("8", default="0"))
    )
    world.ask()
    assert consumed(world) == [{"memory": "20", "slots": "0"}]


@pytest.mark.parametrize(
    ("asked", "given"), [("1", "10"), ("10", "10"), ("11", "15"), ("15", "15"), ("36", "40")]
)
def test_a_range_rounds_up(world: Any, asked: str, given: str) -> None:
    """To the minimum, then to the next step above the minimum."""
    world.publish(world.shared("gpu", memory=governed("80", **RANGE)))
    world.ask(world.request(capacity={"memory": asked}))
    assert consumed(world) == [{"memory": given}]


def test_a_range_without_step_takes_any_amount(world: Any) -> None:
    """Above the minimum."""
    world.publish(world.shared("gpu", memory=governed("80", default="1", range_min="1")))
    world.ask(world.request(capacity={"memory": "17"}))
    assert consumed(world) == [{"memory": "17"}]


@pytest.mark.parametrize(("asked", "given"), [("1", "2"), ("3", "4"), ("4", "4")])
def test_valid_values_round_up(world: Any, asked: str, given: str) -> None:
    """To the next valid one."""
    world.publish(world.shared("gpu", slots=governed("8", default="2", valid_values=("2", "4"))))
    world.ask(world.request(capacity={"slots": asked}))
    assert consumed(world) == [{"slots": given}]


@pytest.mark.parametrize(
    "capacity",
    [
        governed("80", **RANGE),
        governed("80", default="2", valid_values=("2", "4")),
        Capacity(value=Quantity.parse("40")),
    ],
)
def test_more_than_allowed_is_not_allocatable(world: Any, capacity: Capacity) -> None:
    """Over the range's maximum, the largest valid value, or the capacity itself."""
    world.publish(world.shared("gpu", memory=capacity))
    world.ask(world.request(capacity={"memory": "41"}))
    assert "1 without the requested capacity" in world.refusal()


def test_a_device_that_lacks_the_capacity_is_skipped(world: Any) -> None:
    """Shared or not."""
    world.publish("plain", world.shared("other", slots="8"), world.shared("gpu", memory="80Gi"))
    world.ask(world.request(capacity={"memory": "1Gi"}))
    assert world.devices() == ["gpu"]


@pytest.mark.parametrize(
    ("asked", "published"), [("memory", "d/memory"), ("d/memory", "memory"), ("e/memory", "memory")]
)
def test_capacities_are_named_as_the_device_does(world: Any, asked: str, published: str) -> None:
    """As upstream: unlike attributes, `memory` and the driver's own `d/memory` are two capacities."""
    world.publish(world.shared("gpu", **{published: "80Gi"}))
    world.ask(world.request(capacity={published: "30Gi"}))
    assert consumed(world) == [{published: "30Gi"}]
    world.claims.clear()
    world.ask(world.request(capacity={asked: "30Gi"}))
    assert "without the requested capacity" in world.refusal()


def test_capacity_filters_ordinary_devices(world: Any) -> None:
    """A device that is allocated once must have what is asked for; nothing is consumed, there is no share."""
    small, big = (
        Device(name=n, capacity={"memory": Capacity(value=Quantity.parse(v))})
        for n, v in (("small", "10Gi"), ("big", "80Gi"))
    )
    world.publish(small, big)
    world.ask(world.request(capacity={"memory": "20Gi"}))
    (result,) = world.results()
    assert (result.device, result.share_id, result.consumed_capacity) == ("big", None, {})


def test_a_device_without_capacity_is_shared_without_limit(world: Any) -> None:
    """Nothing to run out of."""
    world.publish(world.shared("gpu"))
    world.hold("gpu", share_id="s")
    for _ in range(5):
        world.ask()
    assert world.devices() == ["gpu"] * 5


def test_one_claim_may_hold_two_shares_of_a_device(world: Any) -> None:
    """Through two requests; one request for two wants two devices."""
    world.publish(world.shared("gpu", memory="80Gi"))
    half = {"memory": "40Gi"}
    world.ask(world.request("r", capacity=half), world.request("s", capacity=half))
    assert world.devices() == ["gpu", "gpu"]
    world.claims.clear()
    world.ask(world.request(count=2, capacity=half))
    assert "2 of class any needed, 1 match" in world.refusal()


def test_distinct_attribute_forbids_two_shares_of_a_device(world: Any) -> None:
    """A device does not differ from itself."""
    one, two = (
        Device(name=n, allow_multiple_allocations=True, attributes={"uuid": n}) for n in ("a", "b")
    )
    world.publish(one, two)
    world.ask(world.request("r"), world.request("s"), constraints=(Constraint(distinct="d/uuid"),))
    assert world.devices() == ["a", "b"]


def test_a_dedicated_device_is_not_shared_later(world: Any) -> None:
    """Allocated as a whole before its flag was turned on: it stays taken."""
    world.publish(world.shared("gpu", memory="80Gi"))
    world.hold("gpu")
    world.ask(world.request(capacity={"memory": "1Gi"}))
    assert "1 allocated" in world.refusal()


def test_a_shared_device_is_dedicated_later_if_its_capacity_lasts(world: Any) -> None:
    """As upstream: shares are out when its flag is turned off, and only their capacity counts."""
    world.publish(Device(name="gpu", capacity={"memory": Capacity(value=Quantity.parse("80Gi"))}))
    world.hold("gpu", share_id="s", consumed={"memory": "1Gi"})
    world.ask()
    assert "1 out of capacity (memory)" in world.refusal()
    world.claims.clear()
    world.ask(world.request(capacity={"memory": "79Gi"}))
    assert world.devices() == ["gpu"]


def test_all_means_shared_devices_without_room_too(world: Any) -> None:
    """What could serve the request if nobody else held a share is among all, and stands in the way (kubernetes#140769)."""
    world.publish(
        world.shared("full", memory="80Gi"),
        world.shared("free", memory="80Gi"),
        world.shared("small", memory="1Gi"),
    )
    world.hold("full", share_id="s", consumed={"memory": "80Gi"})
    world.ask(world.request(mode="All", capacity={"memory": "2Gi"}))
    assert "3 match: 1 out of capacity (memory), 1 without" in world.refusal()
    world.held.clear()
    assert world.devices() == ["full", "free"]
