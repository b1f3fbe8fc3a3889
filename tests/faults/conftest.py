"""What all tests of this folder stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.faults.forks import Forks, forking
from tests.kubelet_plugin.conftest import api, new_claim
from tests.process.conftest import cluster, folder, gates, idle, plugin, version

__all__ = ["api", "cluster", "folder", "gates", "idle", "new_claim", "plugin", "version"]
"""Fixtures of the tests of a node and of one process."""


@pytest.fixture
async def forks() -> AsyncIterator[Forks]:
    """Starts plugins; none outlives the test."""
    async with forking() as started:
        yield started
