"""Each bug that `upstream_bugs` lists, shown on real schedulers: in the minors that it is listed for, and in no others."""

from __future__ import annotations

import pytest

from dra_driver.rules.allocate import Matcher
from tests.cluster.controlplane import ControlPlane
from tests.cluster.differential.small import SmallCase, device, selector
from tests.cluster.differential.trial import Trial
from tests.cluster.differential.upstream_bugs import (
    ALL_AS_SECOND_CHOICE,
    INCOMPLETE_POOL,
    INVALID_POOL,
    SPREAD_POOL,
    UpstreamBug,
)
from tests.cluster.differential.verdict import expected


class Witness:
    """Sees whether the scheduler of the control plane does what a bug makes it do."""

    def __init__(self, control_plane: ControlPlane, trial: Trial, matcher: Matcher) -> None:
        self._minor = control_plane.version[:2]
        self._trial = trial
        self._matcher = matcher

    async def check(self, bug: UpstreamBug, small: SmallCase, *, wrong: tuple[str, ...]) -> None:
        """`wrong` are the devices that the bug makes the scheduler give; without it, it answers as our allocator does."""
        case = small.case
        right = [answer.devices for answer in expected(case, self._matcher)]
        assert bug.concerns(case)
        assert wrong not in right
        theirs = [wrong] if self._minor in bug.minors else right
        replies = await self._trial.put([case], lambda _, reply: reply.answer.devices in theirs)
        assert replies[case.name].answer.devices in theirs, replies[case.name].message


@pytest.fixture
def witness(control_plane: ControlPlane, trial: Trial, matcher: Matcher) -> Witness:
    return Witness(control_plane, trial, matcher)


async def test_all_as_second_choice_is_one_device(witness: Witness) -> None:
    """The first alternative wants one device, so the second is done after one, too."""
    small = SmallCase("second-choice")
    small.publish(device("one", attributes={"kind": "x"}), device("two", attributes={"kind": "x"}))
    nothing = {"name": "first", "selectors": selector("own.kind == 'y'")}
    small.ask(small.first_available("r", nothing, {"name": "second", "allocationMode": "All"}))
    await witness.check(ALL_AS_SECOND_CHOICE, small, wrong=("one",))


async def test_all_of_a_spread_pool_is_refused(witness: Witness) -> None:
    """Every node sees one of two slices, and waits for the other one."""
    small = SmallCase("spread-pool")
    small.publish(device("here"), of=2)
    small.publish(device("there"), of=2, node="b")
    small.ask(small.request("r", allocationMode="All"))
    await witness.check(SPREAD_POOL, small, wrong=())


async def test_a_pool_is_used_while_it_is_updated(witness: Witness) -> None:
    """One of two slices is there."""
    small = SmallCase("half-a-pool")
    small.publish(device("early"), of=2)
    small.ask()
    await witness.check(INCOMPLETE_POOL, small, wrong=("early",))


async def test_an_invalid_pool_fails_the_attempt_on_other_nodes(witness: Witness) -> None:
    """A pod could have a device on one node; on the other one there is a pool that has a device twice."""
    small = SmallCase("device-twice")
    small.publish(device("good"))
    small.publish(device("bad"), pool="q", of=2, node="b")
    small.publish(device("bad"), pool="q", of=2, node="b")
    small.ask()
    await witness.check(INVALID_POOL, small, wrong=())
