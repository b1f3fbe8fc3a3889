"""Details that random cases rarely meet, each asked of a real scheduler that has all features and of our allocator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from dra_driver.rules.allocate import Matcher
from tests.cluster.controlplane import ControlPlane
from tests.cluster.differential.small import SmallCase, consuming, counter_set, device, selector
from tests.cluster.differential.trial import Trial
from tests.cluster.differential.verdict import expected

Build = Callable[[SmallCase], None]

TAINT = {"key": "differential.test/sick", "value": "x", "effect": "NoSchedule"}


def shares_without_capacity_are_charged_once(small: SmallCase) -> None:
    """The second share of a device needs no counters, even if the device has no capacity."""
    small.publish(sharedCounters=[counter_set(1)], of=2)
    small.publish(consuming("gpu", 1, allowMultipleAllocations=True), of=2)
    small.hold("gpu", shared=True)
    small.ask(small.request("r"), small.request("s"))


def an_overdrawn_counter_blocks_its_pool(small: SmallCase) -> None:
    """Devices that consume other counters of the pool wait as well; those that consume none do not."""
    sets = [counter_set(1, "small"), counter_set(9, "big")]
    small.publish(sharedCounters=sets, of=2)
    taken, free = (
        consuming(name, 2, counter_set=s) for name, s in (("taken", "small"), ("free", "big"))
    )
    small.publish(taken, free, device("plain"), of=2)
    small.hold("taken")
    small.ask()


def all_ignores_incomplete_pools_of_other_nodes(small: SmallCase) -> None:
    """Only pools that the node sees something of have to be complete."""
    small.publish(device("here"))
    small.publish(device("there"), pool="q", of=2, node="elsewhere")
    small.ask(small.request("r", allocationMode="All"))


def a_selector_fails_on_another_nodes_device(small: SmallCase) -> None:
    """Selectors come before per-device node selection."""
    places = [{"nodeName": f"{small.name}-{letter}"} for letter in "ba"]
    theirs = device("theirs", **places[0])
    ours = device("ours", attributes={"kind": "x"}, **places[1])
    small.publish(theirs, ours, node=None, perDeviceNodeSelection=True)
    small.ask(small.request("r", selectors=selector("own.kind == 'x'")))


def no_selector_for_a_device_taken_before(small: SmallCase) -> None:
    """What an earlier request took is not evaluated, so its missing attribute does no harm."""
    small.publish(device("first"), device("second", attributes={"kind": "x"}))
    small.ask(small.request("r"), small.request("s", selectors=selector("own.kind == 'x'")))


def rejected_candidates_give_back_counters(small: SmallCase) -> None:
    """Tainted and mismatched candidates are tried first, and leave no charge (kubernetes#140436)."""
    small.publish(sharedCounters=[counter_set(2)], of=2)
    devices = [
        consuming("tainted", 1, attributes={"kind": "x"}, taints=[TAINT]),
        consuming("one", 1, attributes={"kind": "x"}),
        consuming("odd", 1, attributes={"kind": "y"}),
        consuming("two", 1, attributes={"kind": "x"}),
    ]
    small.publish(*devices, of=2)
    constraint = {"matchAttribute": f"{small.driver}/kind"}
    small.ask(small.request("r", count=2), constraints=[constraint])


def an_administrator_is_charged_counters(small: SmallCase) -> None:
    """To look at a device needs what the device consumes (kubernetes#140729)."""
    small.publish(sharedCounters=[counter_set(1)], of=2)
    small.publish(consuming("gpu", 1), of=2)
    small.hold("gpu")
    small.ask(small.request("r", adminAccess=True))


def a_withdrawn_device_frees_its_counters(small: SmallCase) -> None:
    """Who is allocated but no longer published charges nothing (kubernetes#140806)."""
    small.publish(sharedCounters=[counter_set(1)], of=2)
    small.publish(consuming("rest", 1), of=2)
    small.hold("withdrawn")
    small.ask()


def capacities_go_by_the_devices_names(small: SmallCase) -> None:
    """`memory` is not the driver's own `<driver>/memory`, unlike with attributes."""
    small.publish(device("gpu", memory="8Gi"))
    small.ask(small.request("r", capacity={"requests": {f"{small.driver}/memory": "1Gi"}}))


def a_device_with_shares_is_given_away_whole(small: SmallCase) -> None:
    """It may be shared no longer; as long as its capacity lasts, nobody minds."""
    small.publish(device("gpu", memory="8Gi"))
    small.hold("gpu", shared=True, consumedCapacity={"memory": "2Gi"})
    small.ask(small.request("r", capacity={"requests": {"memory": "6Gi"}}))


def all_means_exhausted_devices_too(small: SmallCase) -> None:
    """A device without capacity left stands in the way of all (kubernetes#140769)."""
    small.publish(
        device("full", memory="8Gi", allowMultipleAllocations=True),
        device("free", memory="8Gi", allowMultipleAllocations=True),
    )
    small.hold("full", shared=True, consumedCapacity={"memory": "8Gi"})
    wanted = {"requests": {"memory": "1Gi"}}
    small.ask(small.request("r", allocationMode="All", capacity=wanted))


def all_of_an_incomplete_pool_fails_everywhere(small: SmallCase) -> None:
    """Even on the node that sees another, complete pool (kubernetes#141829)."""
    small.publish(device("here"))
    small.publish(device("there"), pool="q", of=2, node="b")
    small.ask(small.request("r", allocationMode="All"))


def a_complete_old_generation_is_used(small: SmallCase) -> None:
    """Where a node sees all slices of an old generation, newer ones of other nodes do not count."""
    small.publish(device("old"))
    small.publish(device("new"), generation=2, node="elsewhere")
    small.ask()


DETAILS: Mapping[Build, tuple[str, ...]] = {
    shares_without_capacity_are_charged_once: ("gpu", "gpu"),
    an_overdrawn_counter_blocks_its_pool: ("plain",),
    all_ignores_incomplete_pools_of_other_nodes: ("here",),
    a_selector_fails_on_another_nodes_device: (),
    no_selector_for_a_device_taken_before: ("first", "second"),
    rejected_candidates_give_back_counters: ("one", "two"),
    an_administrator_is_charged_counters: (),
    a_withdrawn_device_frees_its_counters: ("rest",),
    capacities_go_by_the_devices_names: (),
    a_device_with_shares_is_given_away_whole: ("gpu",),
    all_means_exhausted_devices_too: (),
    all_of_an_incomplete_pool_fails_everywhere: (),
    a_complete_old_generation_is_used: ("old",),
}
"""The details, with the devices that the pod gets; none where it goes nowhere."""


@pytest.fixture
def beta(control_plane: ControlPlane) -> None:
    """For schedulers that have counters, shares and so on switched on."""
    if control_plane.version < (1, 36, 0):
        pytest.skip(f"Kubernetes {control_plane.version} has not all of these features on")


@pytest.mark.usefixtures("beta")
async def test_details_are_as_upstream(trial: Trial, matcher: Matcher) -> None:
    """Each of `DETAILS` has the same outcome on both sides, and it is the one that is written there."""
    smalls = {build: SmallCase(f"detail-{number}") for number, build in enumerate(DETAILS)}
    for build, small in smalls.items():
        build(small)
    cases = {build: small.case for build, small in smalls.items()}
    right = {case.name: DETAILS[build] for build, case in cases.items()}
    replies = await trial.put(
        list(cases.values()), lambda case, reply: reply.answer.devices == right[case.name]
    )
    for build, case in cases.items():
        reply = replies[case.name]
        assert reply.answer.devices == DETAILS[build], (build.__doc__, reply.message)
        assert reply.answer in expected(case, matcher), build.__doc__


@pytest.mark.usefixtures("beta")
async def test_a_version_compared_with_a_text_fails_upstream_only(
    trial: Trial, matcher: Matcher
) -> None:
    """The one difference in CEL that `rules.selectors` admits: false here, an error there. The remedy is `semver()`."""
    small = SmallCase("version-and-text")
    versioned = device("versioned")
    versioned["attributes"] = {"release": {"version": "1.2.3"}}
    small.publish(versioned, device("worded", attributes={"release": "1.2.3"}))
    small.ask(small.request("r", selectors=selector("own.release == '1.2.3'")))
    replies = await trial.put([small.case], lambda _, reply: "no such overload" in reply.message)
    assert "no such overload" in replies[small.name].message
    assert [a.devices for a in expected(small.case, matcher)] == [("worded",)]
