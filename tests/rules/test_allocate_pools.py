"""Which pools a node sees, and which of them can be used (k8s-dra.md 5.2, KEP-4381)."""

from __future__ import annotations

from typing import Any

import pytest

from dra_driver.model.slices import Device, NodePlace, NodeRequirement
from dra_driver.rules.allocate import AllocationError, NodeInfo

EVERYWHERE = NodePlace(all_nodes=True)
ELSEWHERE = NodePlace(node_name="n2")


def on(key: str, operator: Any, *values: str, field: bool = False) -> NodePlace:
    requirement = NodeRequirement(key=key, operator=operator, values=values, field=field)
    return NodePlace(node_selector=(requirement,))


def test_older_generations_are_ignored(world: Any) -> None:
    """A driver replaces its pool: what the old slices hold is gone."""
    world.publish("old", name="0", generation=1)
    world.publish("new", name="1", generation=2)
    world.ask()
    assert world.devices() == ["new"]


def test_a_newer_generation_for_other_nodes_hides_an_old_part(world: Any) -> None:
    """A node that sees a part of an outdated pool looks for the rest, and finds that the pool is none of its business."""
    world.publish("old", name="0", generation=1, of=2)
    world.publish("new", name="1", generation=2, place=ELSEWHERE)
    world.publish("other", pool="q")
    world.ask(world.request(mode="All"))
    assert world.devices() == ["other"]


def test_an_old_generation_that_is_complete_on_the_node_is_used(world: Any) -> None:
    """As upstream: where all slices are in sight, nobody looks whether other nodes have newer ones."""
    world.publish("old", name="0", generation=1)
    world.publish("new", name="1", generation=2, place=ELSEWHERE)
    world.ask()
    assert world.devices() == ["old"]


def test_an_incomplete_pool_is_skipped(world: Any) -> None:
    """A pool that is being written is used by nobody; others are."""
    world.publish("early", pool="a", of=2)
    world.publish("ready", pool="b")
    world.ask()
    assert world.devices() == ["ready"]


def test_an_incomplete_pool_alone_is_named(world: Any) -> None:
    """The refusal says what is missing."""
    world.publish("early", of=2)
    world.ask()
    assert "pool d/p is incomplete: 1 of 2 slices are there" in world.refusal()


def test_all_devices_of_an_incomplete_pool_fail_the_attempt(world: Any) -> None:
    """Nobody knows how many all are: an error, even if another pool is complete."""
    world.publish("early", pool="a", of=2)
    world.publish("ready", pool="b")
    world.ask(world.request(mode="All"))
    with pytest.raises(AllocationError, match="pool d/a"):
        world.allocate()


def test_slices_of_other_nodes_complete_a_pool(world: Any) -> None:
    """Completeness counts all slices of the pool."""
    world.publish("mine", name="0", of=2)
    world.publish("theirs", name="1", of=2, place=ELSEWHERE)
    world.ask(world.request(mode="All"))
    assert world.devices() == ["mine"]


@pytest.mark.parametrize("flaw", ["device", "set", "unknown set", "unknown counter"])
def test_an_invalid_pool_is_skipped(world: Any, flaw: str) -> None:
    """Duplicate devices, duplicate counter sets and unknown counters make a pool unusable; other pools are used."""
    _publish_invalid(world, flaw)
    world.publish("good", pool="q")
    world.ask()
    assert world.devices() == ["good"]


@pytest.mark.parametrize("flaw", ["device", "set", "unknown set", "unknown counter"])
def test_an_invalid_pool_is_named_if_nothing_else_fits(world: Any, flaw: str) -> None:
    """The error is reported only where nothing could be allocated otherwise."""
    _publish_invalid(world, flaw)
    world.ask()
    assert "invalid resource pools were encountered: d/p" in world.refusal()


def test_all_devices_of_an_invalid_pool_fail_the_attempt(world: Any) -> None:
    """As with an incomplete pool, nobody knows what all are."""
    _publish_invalid(world, "device")
    world.ask(world.request(mode="All"))
    with pytest.raises(AllocationError, match="twice"):
        world.allocate()


def _publish_invalid(world: Any, flaw: str) -> None:
    if flaw == "device":
        world.publish("twin", name="0", of=2)
        world.publish("twin", name="1", of=2)
        return
    world.publish_counters({"set": {"n": 1}}, of=3)
    again = {"set": {"n": 1}} if flaw == "set" else {"other": {"n": 1}}
    world.publish_counters(again, of=3)
    counter_set = "nowhere" if flaw == "unknown set" else "set"
    counter = "nothing" if flaw == "unknown counter" else "n"
    world.publish(world.partition("d", counter_set, **{counter: 1}), of=3)


def test_equal_pool_names_of_two_drivers_are_two_pools(world: Any) -> None:
    """Names are unique per driver only: the same device name in both is no duplicate."""
    world.publish("gpu", driver="a")
    world.publish("gpu", driver="b")
    world.ask(world.request(count=2))
    assert [(r.driver, r.device) for r in world.results()] == [("a", "gpu"), ("b", "gpu")]


@pytest.mark.parametrize(
    ("place", "seen"),
    [
        (NodePlace(node_name="n1"), True),
        (ELSEWHERE, False),
        (EVERYWHERE, True),
        (NodePlace(), False),
        (NodePlace(node_selector=()), False),
        (on("zone", "In", "a", "b"), True),
        (on("zone", "In", "b"), False),
        (on("zone", "NotIn", "b"), True),
        (on("rack", "NotIn", "b"), True),
        (on("zone", "Exists"), True),
        (on("rack", "Exists"), False),
        (on("rack", "DoesNotExist"), True),
        (on("size", "Gt", "7"), True),
        (on("size", "Lt", "8"), False),
        (on("zone", "Gt", "7"), False),
        (on("metadata.name", "In", "n1", field=True), True),
        (on("metadata.name", "In", "n2", field=True), False),
    ],
)
def test_a_slice_reaches_the_nodes_it_names(world: Any, place: NodePlace, seen: bool) -> None:
    """By name, by selector (an empty one selects nothing), or everywhere."""
    world.publish("gpu", place=place)
    world.ask()
    assert isinstance(world.allocate(), tuple) == seen


def test_every_requirement_of_a_selector_holds(world: Any) -> None:
    """A term's requirements are joined by and."""
    both = (*on("zone", "Exists").node_selector, *on("rack", "Exists").node_selector)  # type: ignore[misc]
    world.publish("gpu", place=NodePlace(node_selector=both))
    world.ask()
    assert "no device" in world.refusal()


def test_devices_choose_their_nodes_one_by_one(world: Any) -> None:
    """With per-device node selection the slice's own place says nothing."""
    theirs, ours = Device(name="theirs", place=ELSEWHERE), Device(name="ours", place=EVERYWHERE)
    world.publish(theirs, ours, place=NodePlace(), per_device_node_selection=True)
    world.ask(world.request(mode="All"))
    assert world.devices() == ["ours"]


def test_selectors_are_evaluated_before_devices_choose_their_nodes(world: Any) -> None:
    """As upstream: on another node's device in the same slice, a selector may fail the attempt."""
    theirs = Device(name="theirs", place=ELSEWHERE)
    ours = Device(name="ours", place=EVERYWHERE, attributes={"kind": "x"})
    world.publish(theirs, ours, place=NodePlace(), per_device_node_selection=True)
    world.ask(world.request(selectors=("kind=x",)))
    with pytest.raises(AllocationError, match="theirs has no kind"):
        world.allocate()


def test_counters_of_a_selected_pool_are_seen_from_every_node(world: Any) -> None:
    """Counter sets that belong to no single node are needed wherever the pool's devices are."""
    world.publish_counters({"set": {"n": 1}}, of=2, place=on("zone", "In", "b"))
    world.publish(world.partition("gpu", n=1), of=2, place=EVERYWHERE)
    world.ask()
    assert world.devices() == ["gpu"]


def test_devices_of_other_nodes_consume_shared_counters(world: Any) -> None:
    """An allocated device of the pool is charged, on whatever node it is."""
    world.publish_counters({"set": {"n": 1}}, of=3, place=EVERYWHERE)
    world.publish(world.partition("ours", n=1), name="1", of=3)
    world.publish(world.partition("theirs", n=1), name="2", of=3, place=ELSEWHERE)
    world.hold("theirs")
    world.ask()
    assert "out of counters (set)" in world.refusal()


def test_another_node_sees_other_devices(world: Any) -> None:
    """The same slices, asked from elsewhere."""
    world.publish("here", name="0", of=2)
    world.publish("there", name="1", of=2, place=ELSEWHERE)
    world.ask()
    world.node = NodeInfo(name="n2")
    assert world.devices() == ["there"]
