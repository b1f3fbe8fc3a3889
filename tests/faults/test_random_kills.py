"""R2, in small: the command `python -m tests.faults.random_kills` does 2,000."""

from __future__ import annotations

import pytest

from tests.faults.forks import Forks
from tests.faults.random_kills import Share, kill_at_random

CALLS = 10
SEED = 20


async def survives(kills: int, number: int, forks: Forks) -> None:
    """Nothing was wrong after any of the kills, and calls were answered in between."""
    lives = await kill_at_random(Share(number, kills, CALLS, SEED), forks)
    assert lives.wrongs == []
    assert lives.answered > kills


async def test_a_plugin_may_be_killed_at_any_moment_under_load(forks: Forks) -> None:
    """Ten lives with ten calls each: after every kill the invariants hold, and in the end nothing is left."""
    await survives(10, 0, forks)


@pytest.mark.faults
@pytest.mark.parametrize("number", range(1, 6))
async def test_two_hundred_random_kills(number: int, forks: Forks) -> None:
    """Forty at a time, so that each test stays within a minute."""
    await survives(40, number, forks)
