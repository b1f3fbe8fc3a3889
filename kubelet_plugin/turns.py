"""Whose turn it is: who works on a claim or changes a GPU does so alone, with facts that are true now.

Claims come before GPUs, and GPUs in sorted order, so that no two ever wait for each other. Where another process works or worked on
the node (a rolling upgrade), a turn begins by looking at what that one recorded and changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from kubelet_plugin.company import Company
from kubelet_plugin.locks import NodeLocks, claim_lock, gpu_lock
from kubelet_plugin.survey import Survey


class Turns:
    """Turns on claims and on GPUs."""

    def __init__(self, locks: NodeLocks, company: Company, survey: Survey) -> None:
        self._locks = locks
        self._company = company
        self._survey = survey

    @asynccontextmanager
    async def claim(self, uid: str) -> AsyncIterator[None]:
        """Nobody else works on the claim while the block runs, and its record is what was last written."""
        async with self._locks.held(claim_lock(uid)):
            with self._company.working(uid):
                self._company.learn_claim(uid)
                yield

    @asynccontextmanager
    async def gpus(self, pools: Mapping[str, str]) -> AsyncIterator[None]:
        """Nobody else changes these GPUs (`pools` has the pool of each), or records a claim on them, while the block runs."""
        async with self._locks.held(*map(gpu_lock, pools)):
            await self._company.learn_all()
            strange = {gpu: pool for gpu, pool in pools.items() if self._company.is_strange(gpu)}
            await asyncio.gather(*(self._survey.look_at(p, gpu) for gpu, p in strange.items()))
            yield

    def peace(self) -> int | None:
        """The same number as long as no other process can have changed anything on the node; None while one may."""
        return self._company.peace()

    def up_to_date(self) -> bool:
        """Whether every record is known that another process can have written."""
        return self._company.up_to_date()

    def require_all(self) -> None:
        """VendorError while a record that another process wrote is not known: something may be given out twice."""
        self._company.require_all()

    def accept_damage(self, uids: frozenset[str]) -> None:
        """These records were damaged when they were loaded."""
        self._company.accept_damage(uids)
