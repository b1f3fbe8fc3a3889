import pytest

from tests.fuzz.__main__ import TARGETS, Portion, run

SEED = 1
PARTS = {"parameters": 2_500, "claims": 1_500, "files": 500, "calls": 500}


@pytest.mark.parametrize("target", TARGETS)
def test_strangers_break_nothing(target: str) -> None:
    """5,000 of the fuzzers' inputs, always the same ones; some are understood, all others refused as they should be."""
    assert run(Portion(target, 0, PARTS[target], SEED)) > 0
