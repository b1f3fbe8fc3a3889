"""Whose turn it is: who works on a claim or changes a GPU does so alone, with facts that are true now.

Claims come before GPUs, and GPUs in sorted order, so that no two ever wait for each other. While this process is alone its
memory is the truth and a turn costs next to nothing; beside another one (a rolling upgrade) each turn begins by looking at what
that one recorded and changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from dra_driver.ports import ClaimStore
from kubelet_plugin.instances import Instance
from kubelet_plugin.locks import NodeLocks, claim_lock, gpu_lock
from kubelet_plugin.state import NodeState
from kubelet_plugin.survey import Survey


class Turns:
    """Turns on claims and on GPUs."""

    def __init__(
        self,
        instance: Instance,
        locks: NodeLocks,
        state: NodeState,
        store: ClaimStore,
        survey: Survey,
    ) -> None:
        self._instance = instance
        self._locks = locks
        self._state = state
        self._store = store
        self._survey = survey
        self._working: set[str] = set()

    @asynccontextmanager
    async def claim(self, uid: str) -> AsyncIterator[None]:
        """Nobody else works on the claim while the block runs, and its record is what was last written."""
        async with self._locks.held(claim_lock(uid)):
            await self._catch_up()
            self._working.add(uid)
            try:
                yield
            finally:
                self._working.discard(uid)

    @asynccontextmanager
    async def gpus(self, pools: Mapping[str, str]) -> AsyncIterator[None]:
        """Nobody else changes these GPUs (`pools` has the pool of each), or records a claim on them, while the block runs."""
        async with self._locks.held(*map(gpu_lock, pools)):
            if await self._catch_up():
                await asyncio.gather(*(self._survey.look_at(p, gpu) for gpu, p in pools.items()))
            yield

    def alone(self) -> bool:
        """Whether no other process works on this node."""
        return self._instance.alone()

    async def _catch_up(self) -> bool:
        if self.alone():
            return False
        stored = await asyncio.to_thread(self._store.records)
        self._state.refresh(stored, ours=self._working)
        return True
