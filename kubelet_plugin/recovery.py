"""Bring journal, hardware and CDI folder into agreement after a start: what a process that died has left is finished or undone."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from collections.abc import Set as AbstractSet

import structlog

from dra_driver.model.errors import DraError, RecordError
from dra_driver.model.record import ClaimRecord
from dra_driver.ports import CdiStore, Damage
from kubelet_plugin.executor import Executor
from kubelet_plugin.state import NodeState

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
        try:
            await _recover_claim(record, executor, cdi)
        except DraError as error:
            log.warning(
                "a claim is not as it should be yet; its next call tries again",
                claim=str(record.claim),
                claim_uid=uid,
                error=str(error),
            )
    try:
        await _remove_orphans(state.records.keys() | {one.claim_uid for one in damages}, cdi)
    except RecordError as error:
        log.warning("CDI files that nobody holds may be left", error=str(error))


async def _recover_claim(record: ClaimRecord, executor: Executor, cdi: CdiStore) -> None:
    uid = record.claim.uid
    if record.preparation is None or record.releasing:
        await executor.release(uid)
        log.info("half-done work is undone", claim=str(record.claim), claim_uid=uid)
    elif not await asyncio.to_thread(cdi.holds, uid, record.preparation.edits):
        await asyncio.to_thread(cdi.write, uid, record.preparation.edits)


async def _remove_orphans(known: AbstractSet[str], cdi: CdiStore) -> None:
    for uid in await asyncio.to_thread(cdi.claims) - known:
        log.info("removing the CDI file of a claim that nobody holds", claim_uid=uid)
        await asyncio.to_thread(cdi.remove, uid)
