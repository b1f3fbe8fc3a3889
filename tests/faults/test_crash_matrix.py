"""R1: at least 100 crashes, each at another point of prepare, unprepare or start, and after each all invariants hold.

Time-slicing and MPS do not exist yet (issue 6 of the plan); their claims become forms of `crash_scene` with them.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.faults.crash_matrix import ONLY_PARTITIONS, ONLY_PASSTHROUGH, cases, passed_by
from tests.faults.crash_scene import staged
from tests.faults.forks import Forks

AT_LEAST: Final = {
    "prepare, before: whole GPU": 12,
    "prepare, after: whole GPU": 8,
    "prepare, before: partition": 18,
    "prepare, after: partition": 14,
    "prepare, before: two partitions": 24,
    "prepare, after: two partitions": 18,
    "prepare, before: virtual machine": 14,
    "prepare, after: virtual machine": 10,
    "prepare, before: monitor": 6,
    "prepare, after: monitor": 4,
    "unprepare, before: whole GPU": 5,
    "unprepare, after: whole GPU": 4,
    "unprepare, before: partition": 9,
    "unprepare, after: partition": 8,
    "unprepare, before: two partitions": 11,
    "unprepare, after: two partitions": 10,
    "unprepare, before: virtual machine": 6,
    "unprepare, after: virtual machine": 5,
    "unprepare, before: monitor": 3,
    "unprepare, after: monitor": 3,
    "start: half-done work": 14,
    "start: damaged record": 8,
    "start: broken slices": 8,
}
"""How many processes of each case must really die; there are some more, as system calls come and go with the product."""
NOT_PASSED_BY: Final = {
    "two partitions": ONLY_PASSTHROUGH,
    "virtual machine": ONLY_PARTITIONS,
}
"""These kinds of claims pass every other place."""


@pytest.mark.parametrize("case", AT_LEAST)
async def test_a_plugin_may_die_at_any_point(case: str, forks: Forks) -> None:
    """What it leaves breaks no invariant, its successor cleans up, goes on and gives everything back; bystanders keep theirs."""
    async with staged(forks) as scene:
        await cases()[case](scene).run()
    outcome = scene.outcome
    assert outcome.wrongs == []
    assert len(outcome.died) >= AT_LEAST[case]
    reached = {point.place for point in outcome.died}
    operation, _, what = case.partition(": ")
    operation, _, when = operation.partition(", ")
    passed = {place for place in passed_by(operation) if place.endswith(when)}
    assert reached <= passed
    if what in NOT_PASSED_BY:
        assert {place.rpartition(".")[0] for place in passed - reached} <= NOT_PASSED_BY[what]


def test_the_matrix_is_complete() -> None:
    """Every case has its number, and together they are the hundred that R1 asks for, of calls alone."""
    assert cases().keys() == AT_LEAST.keys()
    calls = [count for case, count in AT_LEAST.items() if not case.startswith("start")]
    assert sum(calls) >= 100
