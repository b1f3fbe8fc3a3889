"""A hardware change that comes back long after its time-out, while two processes serve the node."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dra_driver.config.machine import Machine
from dra_driver.model.device import CreateStage, DestroyStage, PartitionChange
from dra_driver.model.errors import VendorError
from kubelet_plugin.instances import joined
from tests.kubelet_plugin.conftest import CountingApi, NewClaim, NodePlugin
from tests.passing_time import pass_time

SMALL = "gpu-0000-1b-00-0-mig-1g-10gb-6"
TIMEOUT_S = 10.0


class Pair(NamedTuple):
    """Two processes' plugins."""

    old: NodePlugin
    new: NodePlugin


@pytest.fixture
async def pair(tmp_path: Path, machine: Machine, api: CountingApi) -> AsyncIterator[Pair]:
    """Both have started."""
    plugins = []
    with ExitStack() as instances:
        for name in ("old", "new"):
            plugin = NodePlugin(tmp_path, machine, api, timeout_s=TIMEOUT_S)
            plugin.instance = instances.enter_context(joined(tmp_path, name))
            plugins.append(await plugin.start())
        yield Pair(*plugins)


class HeldBack:
    """The next change of a kind waits before it reaches the hardware, until the block is told to let it go."""

    def __init__(
        self, plugin: NodePlugin, kind: type[PartitionChange], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.go_on = threading.Event()
        self._reached = threading.Event()
        real = plugin.backend.partition

        def partition(change: PartitionChange) -> str:
            if isinstance(change, kind) and not self._reached.is_set():
                self._reached.set()
                assert self.go_on.wait(30)
            return real(change)

        monkeypatch.setattr(plugin.backend, "partition", partition)

    async def outlives(self, call: Coroutine[Any, Any, object]) -> None:
        """The call makes the change, and its time-out passes."""
        calling = asyncio.create_task(call)
        assert await asyncio.to_thread(self._reached.wait, 30)
        pass_time(TIMEOUT_S)
        with pytest.raises(VendorError, match="did not answer"):
            await calling


async def is_waiting(call: Awaitable[object]) -> None:
    """It has not ended. That can only be seen by waiting a little; on a slow machine this proves less, and never fails."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(call), 0.3)


async def test_what_an_old_process_makes_late_is_never_nobody_s(
    pair: Pair, new_claim: NewClaim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its create outlives the call; the newer process gives the claim back only when that has ended, and nothing is left."""
    claim = new_claim(SMALL)
    held = HeldBack(pair.old, CreateStage, monkeypatch)
    await held.outlives(pair.old.prepare(claim, deadline=0.0))
    given_back = asyncio.ensure_future(pair.new.unprepare(claim))
    await is_waiting(given_back)
    held.go_on.set()
    await asyncio.wait_for(given_back, 10)
    assert pair.new.leftovers() == []


async def test_what_an_old_process_destroys_late_is_never_another_claim_s(
    pair: Pair, new_claim: NewClaim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its destroy outlives the call; nobody gets a partition in that place before it has ended."""
    first, second = new_claim(SMALL), new_claim(SMALL)
    await pair.old.prepare(first)
    held = HeldBack(pair.old, DestroyStage, monkeypatch)
    await held.outlives(pair.old.unprepare(first))
    given_back = asyncio.ensure_future(pair.new.unprepare(first))
    await is_waiting(given_back)
    held.go_on.set()
    await asyncio.wait_for(given_back, 10)
    await pair.new.prepare(second)
    assert pair.new.instances() == [("1g.10gb", 6, True)]
