"""What is written into a claim's status (k8s-dra.md 5.8)."""

from __future__ import annotations

from typing import Any

import pytest

from dra_driver.model.claim import DeviceClass, OpaqueConfig, Toleration
from dra_driver.model.slices import Device, NodePlace, NodeRequirement

HERE = (NodeRequirement(key="metadata.name", operator="In", values=("n1",), field=True),)
IN_A = NodeRequirement(key="zone", operator="In", values=("a",))
SIZED = NodeRequirement(key="size", operator="Exists")


def config(name: str, *requests: str, driver: str = "d") -> OpaqueConfig:
    return OpaqueConfig(driver=driver, parameters={"is": name}, requests=requests)


def entries(world: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    (allocation,) = world.allocate()
    return [(c.parameters["is"], c.source, c.requests) for c in allocation.config]


def test_results_copy_what_the_driver_and_the_kubelet_need(world: Any) -> None:
    """Tolerations from the request, binding conditions from the device."""
    tolerations = (Toleration(key="k", operator="Exists"),)
    bound = Device(name="a", binding_conditions=("Ready",), binding_failure_conditions=("Broken",))
    world.publish(bound)
    world.ask(world.request("r", tolerations=tolerations))
    (result,) = world.results()
    assert (result.request, result.driver, result.pool, result.device) == ("r", "d", "p", "a")
    assert result.tolerations == tolerations
    assert result.binding_conditions == ("Ready",)
    assert result.binding_failure_conditions == ("Broken",)
    assert not result.admin_access
    assert result.share_id is None


def test_each_claim_has_its_own_results(world: Any) -> None:
    """One allocation per claim, in the order of the claims."""
    world.publish("a", "b", "c")
    world.ask(world.request("r", count=2))
    world.ask(world.request("s"))
    first, second = world.allocate()
    assert [r.device for r in first.results] == ["a", "b"]
    assert [r.request for r in second.results] == ["s"]


def test_class_config_comes_first_once_per_class(world: Any) -> None:
    """With the requests that use the class; claim config comes after it and wins."""
    world.publish("a", "b", "c")
    world.classes["any"] = DeviceClass(name="any", config=(config("any-1"), config("any-2")))
    world.classes["other"] = DeviceClass(name="other", config=(config("other"),))
    requests = (world.request("r"), world.request("s", device_class="other"), world.request("t"))
    world.ask(*requests, config=(config("claim", "t"),))
    assert entries(world) == [
        ("any-1", "FromClass", ("r", "t")),
        ("any-2", "FromClass", ("r", "t")),
        ("other", "FromClass", ("s",)),
        ("claim", "FromClaim", ("t",)),
    ]


def test_config_for_all_requests_names_none(world: Any) -> None:
    """Empty means all, and is used wherever all are meant."""
    world.publish("a", "b")
    world.classes["any"] = DeviceClass(name="any", config=(config("class"),))
    claim_config = (config("all"), config("both", "r", "s"), config("one", "s"))
    world.ask(world.request("r"), world.request("s"), config=claim_config)
    assert entries(world) == [
        ("class", "FromClass", ()),
        ("all", "FromClaim", ()),
        ("both", "FromClaim", ()),
        ("one", "FromClaim", ("s",)),
    ]


def test_config_for_all_alternatives_of_a_request_is_not_for_all_requests(world: Any) -> None:
    """As many names as there are requests, and yet one of these is not meant."""
    world.publish("a", "b")
    either = world.first_available("r", world.request("one"), world.request("two"))
    world.ask(either, world.request("s"), config=(config("either", "r/one", "r/two"),))
    assert entries(world) == [("either", "FromClaim", ("r/one", "r/two"))]


def test_config_of_alternatives_that_were_not_chosen_is_left_out(world: Any) -> None:
    """`main` means whichever was chosen, `main/sub` that one; the class is the chosen alternative's."""
    world.publish("a", "b")
    world.hold("a")
    for name in ("x", "y"):
        world.classes[name] = DeviceClass(name=name, config=(config(f"class-{name}"),))
    pair, one = (
        world.request("two", device_class="x", count=2),
        world.request("one", device_class="y"),
    )
    claim_config = (config("main", "r"), config("not", "r/two"), config("chosen", "r/one"))
    world.ask(world.first_available("r", pair, one), config=claim_config)
    assert entries(world) == [
        ("class-y", "FromClass", ()),
        ("main", "FromClaim", ()),
        ("chosen", "FromClaim", ()),
    ]


def test_config_of_other_drivers_is_kept(world: Any) -> None:
    """Drivers filter; the scheduler does not."""
    world.publish("a")
    world.ask(config=(config("theirs", driver="e"),))
    assert entries(world) == [("theirs", "FromClaim", ())]


@pytest.mark.parametrize(
    ("places", "selector"),
    [
        ([NodePlace(all_nodes=True)], None),
        ([NodePlace(node_name="n1")], HERE),
        ([NodePlace(all_nodes=True), NodePlace(node_name="n1")], HERE),
        ([NodePlace(node_selector=(IN_A,))], (IN_A,)),
        ([NodePlace(node_selector=(IN_A,)), NodePlace(node_selector=(IN_A, SIZED))], (IN_A, SIZED)),
        ([NodePlace(node_selector=(IN_A,)), NodePlace(all_nodes=True)], (IN_A,)),
        ([NodePlace(node_selector=(IN_A,)), NodePlace(node_name="n1")], HERE),
    ],
)
def test_the_allocation_is_valid_where_all_its_devices_are(
    world: Any, places: list[NodePlace], selector: tuple[NodeRequirement, ...] | None
) -> None:
    """On this node if one device is local to it, else where all selectors hold, each requirement once."""
    for number, place in enumerate(places):
        world.publish(f"d{number}", pool=f"p{number}", place=place)
    world.ask(world.request(count=len(places)))
    (allocation,) = world.allocate()
    assert allocation.node_selector == selector


def test_devices_with_a_place_of_their_own_decide_the_selector(world: Any) -> None:
    """Per-device node selection."""
    world.publish(
        Device(name="a", place=NodePlace(node_selector=(SIZED,))),
        place=NodePlace(),
        per_device_node_selection=True,
    )
    world.ask()
    (allocation,) = world.allocate()
    assert allocation.node_selector == (SIZED,)


def test_a_device_that_binds_pins_the_claim_to_the_node(world: Any) -> None:
    """bindsToNode: usable anywhere before, here alone from now on."""
    world.publish(Device(name="a", binds_to_node=True), place=NodePlace(all_nodes=True))
    world.ask()
    (allocation,) = world.allocate()
    assert allocation.node_selector == HERE
