"""Brings one pool to what is desired: compares, keeps the pace, writes, and looks at what was really stored."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from dra_driver.model.errors import Conflict, FieldsDropped, NotFound
from dra_driver.model.slices import ResourceSlice
from dra_driver.rules.pool_diff import PoolWrites, diff_pool, is_same
from dra_driver.rules.pool_layout import DesiredPool
from kubelet_plugin.pacing import Pacing
from kubelet_plugin.slice_store import SliceStore, StoredSlice

log = structlog.get_logger(__name__)

AGAIN_S = 0.2
"""How soon to look again at what somebody else changed meanwhile."""


class PoolWriter:
    """`stored` is always all that was read in this round, by name."""

    def __init__(self, store: SliceStore, pacing: Pacing) -> None:
        self._store = store
        self._pacing = pacing

    async def write(
        self,
        pool: DesiredPool,
        stored: Mapping[str, StoredSlice],
        annotations: Mapping[str, str],
    ) -> float:
        """Seconds until the rest may be written; 0 once all is stored. FieldsDropped: then the pool is deleted."""
        writes = diff_pool(pool, [item.value for item in stored.values() if item.value])
        if not writes:
            return 0.0
        wait_s = self._pacing.wait_s(item.name for item in writes.writes)
        if wait_s > 0:
            log.warning(
                "somebody else deletes or changes our slices; waiting before writing them again",
                pool=pool.name,
                wait_s=round(wait_s, 1),
            )
            return wait_s
        log.info("writing slices", pool=pool.name, **_counts(writes))
        is_done = True
        for name in writes.deletes:
            is_done &= await self.delete(stored[name])
        for wanted in writes.writes:
            if not await self._put(wanted, annotations, stored.get(wanted.name)):
                return AGAIN_S
        return 0.0 if is_done else AGAIN_S

    async def delete(self, item: StoredSlice) -> bool:
        """Delete the slice; False if it was not as it was read."""
        self._pacing.deleted(item.name)
        return await self._store.delete(item)

    async def _put(
        self, wanted: ResourceSlice, annotations: Mapping[str, str], stored: StoredSlice | None
    ) -> bool:
        """False if it was changed meanwhile. A new one that is there already is an error, as looking at once cannot help."""
        self._pacing.count(wanted.name)
        try:
            answer = await self._store.put(wanted, annotations, stored)
        except (Conflict, NotFound):
            if stored is None:
                raise
            return False
        self._pacing.wrote(wanted.name)
        if not is_same(answer, wanted):
            await self._withdraw(wanted.pool.name)
            raise FieldsDropped(wanted.name)
        return True

    async def _withdraw(self, pool: str) -> None:
        """Delete the pool, its last written slices included, so that nobody can use what is not whole."""
        for item in (await self._store.read()).values():
            if item.value is None or item.value.pool.name == pool:
                await self.delete(item)


def _counts(writes: PoolWrites) -> dict[str, int]:
    return {"writes": len(writes.writes), "deletes": len(writes.deletes)}
