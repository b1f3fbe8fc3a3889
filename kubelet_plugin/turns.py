"""Whose turn it is: who works on a claim or changes a GPU does so alone, with facts that are true now.

Claims come before GPUs, and GPUs in sorted order, so that no two ever wait for each other. While this process is alone its
memory is the truth and a turn costs next to nothing; beside another one (a rolling upgrade), and once more after it has gone, each
turn begins by looking at what that one recorded and changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

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
        self._looks = _Looks()
        self._known = self._start = instance.peace()
        self._seen: dict[str, int | None] = {}

    @asynccontextmanager
    async def claim(self, uid: str) -> AsyncIterator[None]:
        """Nobody else works on the claim while the block runs, and its record is what was last written."""
        async with self._locks.held(claim_lock(uid)):
            await self._catch_up()
            self._working.add(uid)
            self._looks.work_on(uid)
            try:
                yield
            finally:
                self._working.discard(uid)

    @asynccontextmanager
    async def gpus(self, pools: Mapping[str, str]) -> AsyncIterator[None]:
        """Nobody else changes these GPUs (`pools` has the pool of each), or records a claim on them, while the block runs."""
        async with self._locks.held(*map(gpu_lock, pools)):
            peace = await self._catch_up()
            await asyncio.gather(*(self._see(pool, gpu, peace) for gpu, pool in pools.items()))
            yield

    def peace(self) -> int | None:
        """The same number as long as no other process can have changed anything; None while one may."""
        return self._instance.peace()

    def up_to_date(self) -> bool:
        """Whether no other process can have recorded anything that is not known here."""
        peace = self._instance.peace()
        return peace is not None and peace == self._known

    async def _catch_up(self) -> int | None:
        """The state's records are true when this returns, except of claims that somebody is working on; since which peace."""
        peace = self._instance.peace()
        if peace is None or peace != self._known:
            with self._looks.looking(self._working) as look:
                stored = await asyncio.to_thread(self._store.records)
                if look.is_newest:
                    self._state.refresh(stored, ours=look.ours)
            self._known = peace
        return peace

    async def _see(self, pool: str, gpu: str, peace: int | None) -> None:
        """What is known of the GPU is true when this returns; the caller holds its lock."""
        if peace is None or peace != self._seen.get(gpu, self._start):
            await self._survey.look_at(pool, gpu)
            self._seen[gpu] = peace


@dataclass(slots=True, eq=False)
class _Look:
    """One look at all records. `ours`: the claims that this process worked on meanwhile, of which it is old news."""

    ours: set[str]
    is_newest: bool = True


class _Looks:
    """The looks under way. One that ends after a later one has ended says nothing new."""

    def __init__(self) -> None:
        self._under_way: list[_Look] = []

    @contextmanager
    def looking(self, working: Collection[str]) -> Iterator[_Look]:
        """A look is under way while the block runs; its end makes earlier ones old."""
        look = _Look(set(working))
        self._under_way.append(look)
        try:
            yield look
            for earlier in self._under_way[: self._under_way.index(look)]:
                earlier.is_newest = False
        finally:
            self._under_way.remove(look)

    def work_on(self, uid: str) -> None:
        """From now on the claim is worked on."""
        for look in self._under_way:
            look.ours.add(uid)
