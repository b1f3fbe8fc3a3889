"""What all tests of this folder stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.faults.forks import Forks, forking


@pytest.fixture
async def forks() -> AsyncIterator[Forks]:
    """Starts plugins; none outlives the test."""
    async with forking() as started:
        yield started
