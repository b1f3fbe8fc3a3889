"""What a request may ask for, and which devices meet it (k8s-dra.md 5.3 to 5.5)."""

from __future__ import annotations

from typing import Any

import pytest

from dra_driver.model.claim import Constraint, DeviceClass, Toleration
from dra_driver.model.slices import Device, Taint, Version
from dra_driver.rules.allocate import AllocationError


def having(name: str, **attributes: Any) -> Device:
    return Device(name=name, attributes=attributes)


def tainted(name: str, effect: Any = "NoSchedule") -> Device:
    return Device(name=name, taints=(Taint(key="sick", value="ecc", effect=effect),))


# Classes and selectors


def test_class_and_request_selectors_must_all_hold(world: Any) -> None:
    """The class's selectors and the request's are joined by and."""
    world.publish(
        having("a", kind="x", size=2), having("b", kind="y", size=1), having("c", kind="x", size=1)
    )
    world.classes["small"] = DeviceClass(name="small", selectors=("size=1",))
    world.ask(world.request(device_class="small", selectors=("kind=x",)))
    assert world.devices() == ["c"]


def test_a_class_without_selectors_matches_everything(world: Any) -> None:
    """The class `any` has none; no selector is evaluated."""
    world.publish("a")
    world.ask()
    assert world.devices() == ["a"]
    assert world.matcher.seen == []


@pytest.mark.parametrize("prioritized", [False, True])
def test_an_unknown_class_fails_the_attempt(world: Any, prioritized: bool) -> None:
    """Even as a later alternative that would not be needed."""
    world.publish("a")
    unknown = world.request("b", device_class="gone")
    world.ask(world.first_available("r", world.request("a"), unknown) if prioritized else unknown)
    with pytest.raises(AllocationError, match="device class gone does not exist"):
        world.allocate()


# Counting


def test_exactly_n_different_devices(world: Any) -> None:
    """Three means three, each once."""
    world.publish("a", "b", "c", "d")
    world.ask(world.request(count=3))
    assert world.devices() == ["a", "b", "c"]


def test_requests_of_a_claim_take_different_devices(world: Any) -> None:
    """Within an attempt a device is given once."""
    world.publish("a", "b")
    world.ask(world.request("r"), world.request("s"))
    world.ask()
    assert "not all together" in world.refusal()
    world.publish("c", name="t", pool="q")
    assert world.devices() == ["a", "b", "c"]


def test_allocated_devices_are_not_given_again(world: Any) -> None:
    """What another claim holds is taken."""
    world.publish("a", "b")
    world.hold("a")
    world.ask()
    assert world.devices() == ["b"]


def test_all_takes_every_match(world: Any) -> None:
    """All means the matching devices, in search order."""
    world.publish(having("a", kind="x"), having("b", kind="y"), having("c", kind="x"))
    world.ask(world.request(mode="All", selectors=("kind=x",)))
    assert world.devices() == ["a", "c"]


def test_all_needs_at_least_one(world: Any) -> None:
    """All of nothing is no allocation."""
    world.publish(having("a", kind="y"))
    world.ask(world.request(mode="All", selectors=("kind=x",)))
    assert "no device of class any matches" in world.refusal()


def test_all_means_all(world: Any) -> None:
    """One match that another claim holds is enough to refuse."""
    world.publish("a", "b")
    world.hold("b")
    world.ask(world.request(mode="All"))
    assert world.refusal().endswith("all of class any needed, 2 match: 1 allocated")


def test_all_needs_every_taint_tolerated(world: Any) -> None:
    """A tainted match is a match."""
    world.publish("a", tainted("b"))
    world.ask(world.request(mode="All"))
    assert "1 tainted (sick)" in world.refusal()


def test_all_and_a_forbidding_constraint_fail_the_attempt(world: Any) -> None:
    """A claim that contradicts itself is an error, not a matter of waiting."""
    world.publish(having("a", kind="x"), having("b", kind="y"))
    world.ask(world.request(mode="All"), constraints=(Constraint(match="d/kind"),))
    with pytest.raises(AllocationError, match="a constraint forbids d/p/b"):
        world.allocate()


def test_a_forbidding_constraint_counts_only_up_to_the_first_obstacle(world: Any) -> None:
    """As upstream: all devices are taken one by one, and a taint before the contradiction ends the attempt in peace."""
    contradiction = (Constraint(match="d/kind", requests=("r",)),)
    world.publish(having("a", kind="x"), tainted("t"), having("b", kind="y"))
    world.ask(
        world.first_available("r", world.request("all", mode="All"), world.request("one")),
        constraints=contradiction,
    )
    assert world.devices() == ["a"]


def test_all_leaves_nothing_for_others_in_the_pod(world: Any) -> None:
    """A device that another request of the pod took is missing from all."""
    world.publish("a", "b")
    world.ask(world.request("one"), world.request("all", mode="All"))
    assert "not all together" in world.refusal()


def test_a_claim_holds_32_devices(world: Any) -> None:
    """32 fit."""
    world.publish(*(f"d{i}" for i in range(40)))
    world.ask(world.request("r", count=30), world.request("s", count=2))
    assert len(world.devices()) == 32


@pytest.mark.parametrize("mode", ["ExactCount", "All"])
def test_more_than_32_devices_fail_the_attempt(world: Any, mode: str) -> None:
    """The API could not store the result: an error."""
    world.publish(*(f"d{i}" for i in range(33)))
    world.ask(world.request(mode=mode, count=33))
    with pytest.raises(AllocationError, match="at least 33 devices"):
        world.allocate()


def test_an_alternative_that_would_exceed_32_is_passed_over(world: Any) -> None:
    """The smaller alternative is taken where the preferred one leaves no room for the rest of the claim."""
    world.publish(*(f"d{i}" for i in range(60)))
    choice = world.first_available("r", world.request("big", count=30), world.request("small"))
    world.ask(choice, world.request("s", count=3))
    assert [r.request for r in world.results()] == ["r/small", "s", "s", "s"]


# Alternatives


def test_the_first_possible_alternative_is_taken(world: Any) -> None:
    """Order of preference, not of device order; the result names main/sub."""
    world.publish(having("a", kind="small"), having("b", kind="big"))
    big, small = (world.request(k, selectors=(f"kind={k}",)) for k in ("big", "small"))
    world.ask(world.first_available("r", big, small))
    assert [(r.request, r.device) for r in world.results()] == [("r/big", "b")]
    world.hold("b")
    assert [(r.request, r.device) for r in world.results()] == [("r/small", "a")]


def test_an_alternative_gives_way_to_a_later_request(world: Any) -> None:
    """The preferred alternative is dropped if the whole pod fits only without it."""
    world.publish(having("a", kind="big"), having("b", kind="small"))
    big, small = (world.request(k, selectors=(f"kind={k}",)) for k in ("big", "small"))
    world.ask(world.first_available("r", big, small), world.request("s", selectors=("kind=big",)))
    assert [(r.request, r.device) for r in world.results()] == [("r/small", "b"), ("s", "a")]


@pytest.mark.parametrize(
    ("named", "given"), [("r", ["a", "b"]), ("r/x", ["a", "b"]), ("r/y", ["a", "c"])]
)
def test_constraints_name_a_request_or_one_alternative(
    world: Any, named: str, given: list[str]
) -> None:
    """`main` means all its alternatives, `main/sub` one."""
    world.publish(having("a", kind="x"), having("c", kind="y"), having("b", kind="x"))
    constraint = Constraint(match="d/kind", requests=(named, "s"))
    world.ask(
        world.first_available("r", world.request("x")),
        world.request("s"),
        constraints=(constraint,),
    )
    assert world.devices() == given


# Administrative access


def test_admin_access_ignores_who_holds_a_device(world: Any) -> None:
    """Monitoring looks at devices in use."""
    world.publish("a")
    world.hold("a")
    world.ask(world.request(admin_access=True))
    (result,) = world.results()
    assert (result.device, result.admin_access) == ("a", True)


def test_admin_access_leaves_the_device_to_others(world: Any) -> None:
    """A result with adminAccess does not count as allocated."""
    world.publish("a")
    world.hold("a", admin_access=True)
    world.ask()
    assert world.devices() == ["a"]


def test_admin_access_never_takes_a_device_twice_in_a_claim(world: Any) -> None:
    """Two admin requests of a claim get two devices; those of two claims may get the same."""
    world.publish("a", "b")
    world.ask(world.request("r", admin_access=True), world.request("s", admin_access=True))
    world.ask(world.request("r", admin_access=True))
    assert world.devices() == ["a", "b", "a"]


def test_admin_access_still_needs_counters(world: Any) -> None:
    """As upstream (kubernetes#140729): an admin request is charged, and refused where counters are used up."""
    world.publish_counters({"set": {"n": 1}}, of=2)
    world.publish(world.partition("a", n=1), of=2)
    world.hold("a")
    world.ask(world.request(admin_access=True))
    assert "out of counters (set)" in world.refusal()


# Taints


@pytest.mark.parametrize("effect", ["NoSchedule", "NoExecute"])
def test_a_taint_keeps_requests_away(world: Any, effect: str) -> None:
    """Both effects do."""
    world.publish(tainted("a", effect), "b")
    world.ask()
    assert world.devices() == ["b"]


def test_a_taint_without_effect_keeps_nobody_away(world: Any) -> None:
    """None is information only."""
    world.publish(tainted("a", "None"))
    world.ask()
    assert world.devices() == ["a"]


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        (Toleration(key="sick", operator="Exists"), True),
        (Toleration(key="sick", operator="Equal", value="ecc"), True),
        (Toleration(key="sick", operator="Equal", value="xid"), False),
        (Toleration(key="other", operator="Exists"), False),
        (Toleration(operator="Exists"), True),
        (Toleration(operator="Equal", value="ecc"), False),
        (Toleration(key="sick", operator="Exists", effect="NoSchedule"), True),
        (Toleration(key="sick", operator="Exists", effect="NoExecute"), False),
    ],
)
def test_a_toleration_matches_by_key_operator_value_and_effect(
    world: Any,
    toleration: Toleration,
    tolerated: bool,
) -> None:
    """An empty key with Exists matches all, an empty effect every effect."""
    world.publish(tainted("a"))
    world.ask(world.request(tolerations=(toleration,)))
    assert isinstance(world.allocate(), tuple) == tolerated


def test_every_taint_must_be_tolerated(world: Any) -> None:
    """One toleration is not enough for two taints."""
    world.publish(Device(name="a", taints=(Taint(key="sick"), Taint(key="leaving"))))
    world.ask(world.request(tolerations=(Toleration(key="sick", operator="Exists"),)))
    assert "1 tainted (leaving)" in world.refusal()


# Constraints


@pytest.mark.parametrize("other", ["1", True, 1.0, Version("1")])
def test_match_attribute_compares_type_and_value(world: Any, other: Any) -> None:
    """The string 1, true and the version 1 are not the number 1."""
    world.publish(having("a", x=1), having("b", x=other), having("c", x=1))
    world.ask(world.request(count=2), constraints=(Constraint(match="d/x"),))
    assert world.devices() == ["a", "c"]


@pytest.mark.parametrize("constraint", [Constraint(match="d/x"), Constraint(distinct="d/x")])
def test_a_device_without_the_attribute_is_not_eligible(world: Any, constraint: Constraint) -> None:
    """Even if it is alone."""
    world.publish("a", having("b", x=1))
    world.ask(constraints=(constraint,))
    assert world.devices() == ["b"]


def test_constraints_concern_the_requests_they_name(world: Any) -> None:
    """Other requests of the claim are free."""
    world.publish(having("a", x=1), "b", having("c", x=1))
    requests = (world.request("r"), world.request("s"), world.request("t"))
    world.ask(*requests, constraints=(Constraint(match="d/x", requests=("r", "t")),))
    assert world.devices() == ["a", "b", "c"]


def test_constraints_concern_one_claim(world: Any) -> None:
    """Two claims with the same constraint may differ from each other."""
    world.publish(having("a", x=1), having("b", x=2))
    for _ in range(2):
        world.ask(constraints=(Constraint(match="d/x"),))
    assert world.devices() == ["a", "b"]


@pytest.mark.parametrize(("driver", "given"), [("d", "a"), ("e", "b")])
def test_short_attribute_names_belong_to_the_driver(world: Any, driver: str, given: str) -> None:
    """`d/x` is found as `x` on devices of driver `d` alone; as `d/x` on every device."""
    world.publish(having("a", x=1), having("b", **{"d/x": 1}), driver=driver)
    world.ask(constraints=(Constraint(match="d/x"),))
    assert world.devices() == [given]


def test_distinct_attribute_wants_pairwise_different_values(world: Any) -> None:
    """Within a request and between requests."""
    world.publish(having("a", x=1), having("b", x=1), having("c", x=2), having("d", x=3))
    world.ask(
        world.request("r", count=2), world.request("s"), constraints=(Constraint(distinct="d/x"),)
    )
    assert world.devices() == ["a", "c", "d"]


def test_an_empty_constraint_fails_the_attempt(world: Any) -> None:
    """A kind of constraint that this version does not know must not be overlooked."""
    world.publish("a")
    world.ask(constraints=(Constraint(),))
    with pytest.raises(AllocationError, match="neither matchAttribute nor distinctAttribute"):
        world.allocate()
