"""Whatever the order of calls, deletions and deaths: no device is given out twice, and nothing is lost (bar R3)."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from kubelet_plugin import planner
from tests.faults.interleavings import run_case

CASES = 50


@pytest.mark.parametrize("first", range(0, 10 * CASES, CASES))
def test_random_orders_break_nothing(first: int) -> None:
    """Five hundred schedules; the command in docs/dev/testing.md runs ten thousand. A number below repeats one alone."""
    broken = {seed: found for seed in range(first, first + CASES) if (found := run_case(seed)[0])}
    assert broken == {}


def test_a_plugin_that_gives_devices_out_twice_is_caught() -> None:
    """The check sees what it is there for: without the planner's own, about every third schedule is wrong."""
    with patch.object(planner, "_collide", lambda *_: False):
        found = [run_case(seed)[0] for seed in range(20)]
    assert sum(any("double grant" in one for one in broken) for broken in found) > 3
