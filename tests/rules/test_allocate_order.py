"""The order of the search decides which solution is found: first fit (k8s-dra.md 5.2)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dra_driver.model.claim import Allocation, Claim, ClaimRef, Constraint
from dra_driver.model.slices import Device
from dra_driver.rules import search
from dra_driver.rules.allocate import AllocationError


def kind(name: str, value: str) -> Device:
    return Device(name=name, attributes={"kind": value})


def test_devices_are_tried_in_list_order(world: Any) -> None:
    """A driver's order of publication is the order of preference, whatever the names."""
    world.publish("z", "a", "m")
    world.ask()
    assert world.devices() == ["z"]


def test_slices_are_tried_by_name(world: Any) -> None:
    """Slice `00000-z` comes before `00001-a`, whatever order the API server lists them in."""
    world.publish("second", name="00001-a", of=2)
    world.publish("first", name="00000-z", of=2)
    world.ask()
    assert world.devices() == ["first"]


def test_pools_are_tried_by_driver_then_by_name(world: Any) -> None:
    """`a/z` comes before `b/a`, and `b/a` before `b/b`."""
    world.publish("third", driver="b", pool="b")
    world.publish("second", driver="b", pool="a")
    world.publish("first", driver="a", pool="z")
    world.ask(world.request(count=3))
    assert world.devices() == ["first", "second", "third"]


def test_pools_with_binding_conditions_come_last(world: Any) -> None:
    """A device that still has to be attached is a last resort."""
    world.publish(Device(name="slow", binding_conditions=("Attached",)), pool="a")
    world.publish("quick", pool="b")
    world.ask(world.request(count=2))
    assert world.devices() == ["quick", "slow"]


def test_later_devices_are_not_evaluated(world: Any) -> None:
    """A selector that would fail behind the chosen device harms nobody; on the way to it, it fails the attempt."""
    world.publish(kind("a", "x"), "b")
    world.ask(world.request(selectors=("kind=x",)))
    assert world.devices() == ["a"]
    world.hold("a")
    with pytest.raises(AllocationError, match="b has no kind"):
        world.allocate()


def test_allocated_devices_are_not_evaluated(world: Any) -> None:
    """Being in use is checked before selectors, as upstream, so that errors come from the same devices."""
    world.publish("a", kind("b", "x"))
    world.hold("a")
    world.ask(world.request(selectors=("kind=x",)))
    assert world.devices() == ["b"]
    assert world.matcher.seen == ["b"]


def test_devices_of_earlier_requests_are_not_evaluated(world: Any) -> None:
    """The same holds for what this attempt has taken already."""
    world.publish("a", kind("b", "x"))
    world.ask(world.request("r"), world.request("s", selectors=("kind=x",)))
    assert world.devices() == ["a", "b"]
    assert world.matcher.seen == ["b"]


def test_a_request_gives_way_to_a_later_one(world: Any) -> None:
    """The picky second request gets the only device it can use: the search backtracks."""
    world.publish(kind("a", "x"), kind("b", "y"))
    world.ask(world.request("anything"), world.request("picky", selectors=("kind=x",)))
    assert world.devices() == ["b", "a"]


def test_a_claim_gives_way_to_a_later_one(world: Any) -> None:
    """All claims of a pod are served together: backtracking goes across claims."""
    world.publish(kind("a", "x"), kind("b", "y"))
    world.ask(world.request("anything"))
    world.ask(world.request("picky", selectors=("kind=x",)))
    assert world.devices() == ["b", "a"]


def test_several_devices_of_a_request_keep_the_order(world: Any) -> None:
    """Within a request the devices are a combination: in search order, each once."""
    world.publish("c", "b", "a")
    world.ask(world.request(count=2))
    assert world.devices() == ["c", "b"]


def test_a_combination_moves_on_as_a_whole(world: Any) -> None:
    """With two of four taken by one request such that the other fits, the first possible pair wins."""
    world.publish(kind("a", "x"), kind("b", "x"), kind("c", "y"), kind("d", "y"))
    same = Constraint(match="d/kind", requests=("pair",))
    picky = world.request("picky", selectors=("kind=x",))
    world.ask(world.request("pair", count=2), picky, constraints=(same,))
    assert world.devices() == ["c", "d", "a"]


def test_nothing_asked_is_nothing_given(world: Any) -> None:
    """A claim without requests is allocated at once, usable everywhere."""
    world.claims.append(Claim(ref=ClaimRef(namespace="ns", name="c", uid="u")))
    assert world.allocate() == (Allocation(results=()),)


def test_inputs_stay_as_they_are(world: Any) -> None:
    """The same question has the same answer twice."""
    world.publish_counters({"set": {"n": 1}}, of=2)
    world.publish(world.partition("a", n=1), world.partition("b", n=1), of=2)
    world.ask()
    assert world.allocate() == world.allocate()


def test_equal_requests_do_not_multiply_the_search(world: Any) -> None:
    """Nine claims for eight equal devices are refused at once, not after eight factorial attempts."""
    world.publish(*(f"gpu-{i}" for i in range(8)))
    for _ in range(9):
        world.ask()
    began = time.process_time()
    assert "not all together" in world.refusal()
    assert time.process_time() - began < 2


def test_equal_claims_under_constraints_are_searched_in_full(world: Any) -> None:
    """Swapping single devices between two constrained claims is not harmless, so no solution is skipped."""
    world.publish(kind("a", "x"), kind("b", "y"), kind("c", "y"), kind("d", "x"))
    for _ in range(2):
        world.ask(world.request("r"), world.request("s"), constraints=(Constraint(match="d/kind"),))
    assert world.devices() == ["a", "d", "b", "c"]


def test_a_request_for_too_many_gives_up_at_once(world: Any) -> None:
    """Where fewer devices are left than are missing, no combination is tried."""
    world.publish(*(f"d{i}" for i in range(30)))
    world.ask(world.request(count=31))
    assert "31 of class any needed, 30 match" in world.refusal()


def test_an_endless_search_is_refused(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator answers within bounded effort, and says that it gave up."""
    monkeypatch.setattr(search, "STEP_LIMIT", 100)
    world.publish_counters({"set": {"n": 10}}, of=2)
    world.publish(*(world.partition(f"d{i}", n=1) for i in range(30)), of=2)
    world.ask(world.request(count=11))
    assert "gave up after 100 tries" in world.refusal()
