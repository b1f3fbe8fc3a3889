"""The same random cases for our allocator and for the real scheduler of each minor: they have to agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from dra_driver.rules.allocate import Matcher
from tests.cluster.controlplane import ControlPlane
from tests.cluster.differential.case import Case
from tests.cluster.differential.generator import generate
from tests.cluster.differential.trial import Reply, Trial
from tests.cluster.differential.upstream_bugs import known_bugs
from tests.cluster.differential.verdict import (
    NOWHERE,
    Answer,
    expected,
    expected_in_any_order,
)

SEEDS = range(340)
SHOWN = 3


@pytest.mark.parametrize("beta", [False, True])
def test_the_cases_are_hard_enough(matcher: Matcher, beta: bool) -> None:
    """At least 30 % cannot be satisfied, 30 % have constraints, 30 % have devices that are allocated already."""
    cases = [generate(seed, beta=beta) for seed in SEEDS]
    least = 0.3 * len(cases)
    assert len(cases) >= 300
    assert sum(expected(case, matcher) == (NOWHERE,) for case in cases) >= least
    assert sum(expected(case, matcher) != (NOWHERE,) for case in cases) >= least
    assert sum(case.has_constraints for case in cases) >= least
    assert sum(bool(case.held) for case in cases) >= least


async def test_the_scheduler_and_our_allocator_agree(
    control_plane: ControlPlane, trial: Trial, matcher: Matcher
) -> None:
    """Device by device, on the node that the scheduler chose; known bugs of its version may touch a few cases.

    1.34 tries pools and slices in no certain order: there, its answer is one of those that some order gives. It also
    writes configurations in another way.
    """
    version = control_plane.version
    modern = version >= (1, 36, 0)
    answers = expected if modern else expected_in_any_order
    cases = [generate(seed, beta=modern) for seed in SEEDS]
    ours = {case.name: answers(case, matcher) for case in cases}

    def agrees(case: Case, reply: Reply) -> bool:
        if modern:
            return reply.answer in ours[case.name]
        return reply.answer.without_config() in [a.without_config() for a in ours[case.name]]

    replies = await trial.put(cases, agrees)
    silent = Reply(answer=NOWHERE, message="the scheduler has not looked at the pod")
    different = [case for case in cases if not agrees(case, replies.get(case.name, silent))]
    unknown = [case for case in different if not known_bugs(case, version)]
    assert not unknown, _report(unknown, ours, replies)
    assert len(different) <= 0.05 * len(cases), "known bugs hide too much"


def _report(
    cases: Sequence[Case], ours: Mapping[str, Sequence[Answer]], replies: Mapping[str, Reply]
) -> str:
    """The first of the cases in full; a case's name is `c` and its seed."""
    names = ", ".join(case.name for case in cases)
    stories = [_story(case, ours[case.name], replies.get(case.name)) for case in cases[:SHOWN]]
    return "\n".join([f"{len(cases)} cases differ: {names}", *stories])


def _story(case: Case, ours: Sequence[Answer], reply: Reply | None) -> str:
    mine = dict.fromkeys(map(str, ours))
    theirs = [str(reply.answer), f"  {reply.message}"] if reply else ["  nothing"]
    return "\n".join([str(case), "our allocator:", *mine, "the scheduler:", *theirs])
