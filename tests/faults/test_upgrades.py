"""Rolling upgrades while pods come and go; `python -m tests.faults.upgrades` does a hundred."""

from __future__ import annotations

import pytest

from tests.faults.upgrades import upgrade


@pytest.mark.faults
async def test_five_upgrades_under_load_lose_nothing() -> None:
    """No failed call, no moment without whole slices, no slice written, and every prepared claim stays prepared."""
    outcome = await upgrade(5, seed=5)
    assert outcome.violations == []
    assert len(outcome.calls_s) > 100
