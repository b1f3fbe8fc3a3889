"""MIG on every simulated board: whoever asks for what fits gets it, and nobody's partition is touched by another."""

from __future__ import annotations

import pytest

from tests.property.mig import MODELS, try_lives

LIVES = 8


@pytest.mark.parametrize("model", MODELS)
def test_lives_of_a_gpu(model: str) -> None:
    """Claims, crashes between any two steps, an administrator's partitions: the command in docs/dev/testing.md tries more."""
    try_lives(model, LIVES, seed_number=1)
