"""Bring journal, hardware and CDI folder into agreement after a start: what a process that died has left is finished or undone."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import structlog

from dra_driver.model.errors import DraError
from dra_driver.ports import CdiStore, Damage
from kubelet_plugin.executor import Executor
from kubelet_plugin.snapshot import NodeState

log = structlog.get_logger(__name__)


async def recover(
    state: NodeState, executor: Executor, cdi: CdiStore, damages: Collection[Damage]
) -> None:
    """Undo half-done work, write lost CDI files again, remove files of claims that nobody holds.

    Works without the API server. What cannot be undone yet stays on record and is tried again with the claim's next call.
    """
    for damage in damages:
        log.error(
            "a record is damaged; its claim is refused",
            claim_uid=damage.claim_uid,
            why=damage.message,
        )
    for uid, record in list(state.records.items()):
        if record.preparation is not None and not record.releasing:
            if not await asyncio.to_thread(cdi.holds, uid, record.preparation.edits):
                await asyncio.to_thread(cdi.write, uid, record.preparation.edits)
            continue
        try:
            await executor.release(uid)
        except DraError as error:
            log.warning(
                "half-done work is not undone yet",
                claim=str(record.claim),
                claim_uid=uid,
                error=str(error),
            )
        else:
            log.info("half-done work is undone", claim=str(record.claim), claim_uid=uid)
    known = state.records.keys() | {damage.claim_uid for damage in damages}
    for uid in await asyncio.to_thread(cdi.claims) - known:
        log.info("removing the CDI file of a claim that nobody holds", claim_uid=uid)
        await asyncio.to_thread(cdi.remove, uid)
