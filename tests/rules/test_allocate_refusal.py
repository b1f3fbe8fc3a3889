"""Why nothing fits, in words that tell a user what to change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dra_driver.model.claim import Constraint
from dra_driver.model.slices import Device, Taint
from dra_driver.rules.allocate import Refusal


def test_no_match_names_the_class(world: Any) -> None:
    """The selectors, or the node, are wrong."""
    world.publish(Device(name="a", attributes={"kind": "x"}))
    world.ask(world.request(selectors=("kind=y",)))
    assert world.refusal() == "claim ns/c0, request r: no device of class any matches its selectors"


def test_matches_are_tallied_by_what_keeps_them_away(world: Any) -> None:
    """How many match, and how many of them are taken, tainted, too small or blocked; most frequent first."""
    world.publish_counters({"set": {"n": 1}}, of=2)
    blocked = [world.partition(f"b{i}", n=1) for i in range(3)]
    world.publish("a", Device(name="t", taints=(Taint(key="sick"),)), *blocked, of=2)
    world.hold("a", "b0")
    world.ask(world.request(count=2))
    assert world.refusal() == (
        "claim ns/c0, request r: 2 of class any needed, 5 match:"
        " 2 allocated, 2 out of counters (set), 1 tainted (sick)"
    )


def test_long_lists_are_cut(world: Any) -> None:
    """Eight GPUs that are partitioned are one reason, not eight."""
    world.publish_counters({f"gpu-{i}": {"n": 1} for i in range(8)}, of=2)
    whole = [world.partition(f"w{i}", f"gpu-{i}", n=1) for i in range(8)]
    world.publish(*whole, *(replace(w, name=f"p{i}") for i, w in enumerate(whole)), of=2)
    world.hold(*(f"p{i}" for i in range(8)))
    world.ask()
    assert world.refusal().endswith("8 out of counters (gpu-0, gpu-1, gpu-2, ...), 8 allocated")


def test_only_requests_that_cannot_be_met_are_named(world: Any) -> None:
    """Those that could be met alone are no news while others could not."""
    world.publish(Device(name="a", attributes={"kind": "x"}))
    world.ask(world.request("good"), world.request("bad", selectors=("kind=y",)))
    assert "request bad" in world.refusal()
    assert "request good" not in world.refusal()


def test_every_alternative_has_its_reason(world: Any) -> None:
    """A firstAvailable request is refused only if each alternative is."""
    world.publish(Device(name="a", attributes={"kind": "x"}))
    alternatives = (world.request("y", selectors=("kind=y",)), world.request("two", count=2))
    world.ask(world.first_available("r", *alternatives))
    assert world.refusal() == (
        "claim ns/c0, request r: no device of class any matches its selectors,"
        " or 2 of class any needed, 1 match"
    )


def test_the_constraint_in_the_way_is_named(world: Any) -> None:
    """The one without which all would fit; others are not mentioned."""
    world.publish(*(Device(name=n, attributes={"x": n, "y": 1}) for n in ("a", "b")))
    harmless, culprit = Constraint(match="d/y"), Constraint(match="d/x", requests=("r", "s"))
    world.ask(world.request("r"), world.request("s"), constraints=(harmless, culprit))
    assert world.refusal() == "claim ns/c0: matchAttribute d/x of requests r, s cannot be met"


def test_competition_is_named_where_no_constraint_is_to_blame(world: Any) -> None:
    """The pod asks for more than there is, in single pieces that would fit."""
    world.publish("a")
    world.ask(world.request("r"), world.request("s"))
    assert world.refusal() == "each request could be met alone, but not all together"


def test_a_failing_selector_of_a_device_in_use_does_not_spoil_the_answer(world: Any) -> None:
    """The explanation looks at devices that the search left alone; they count as not matching."""
    world.publish("a", Device(name="b", attributes={"kind": "y"}))
    world.hold("a")
    world.ask(world.request(selectors=("kind=x",)))
    assert "no device of class any matches" in world.refusal()


def test_tallies_can_be_read_by_programs(world: Any) -> None:
    """The numbers are data; the sentence is made of them."""
    world.publish("a", "b")
    world.hold("a")
    world.ask(world.request(count=2))
    refusal = world.allocate()
    assert isinstance(refusal, Refusal)
    (shortage,) = refusal.unmet[0].shortages
    assert (refusal.node, refusal.unmet[0].claim) == ("n1", "ns/c0")
    assert (shortage.needed, shortage.matching) == (2, 2)
    assert [(tally.reason, tally.devices) for tally in shortage.tallies] == [("allocated", 1)]
    assert str(replace(refusal, remarks=("and so on",))).endswith("1 allocated; and so on")
