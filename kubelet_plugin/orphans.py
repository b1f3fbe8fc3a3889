"""CDI files of claims that have no record: what is left when the journal was lost, or its folder was emptied.

A file is removed once it is sure that its claim is gone. Is the claim still there, it may be in use, and its record is written
anew: state that was lost must not make devices free that containers use.
"""

from __future__ import annotations

import asyncio

import structlog
from structlog.contextvars import bound_contextvars

from dra_driver.model.errors import DraError, RecordError, RecordOutdated
from dra_driver.model.record import ClaimRecord
from dra_driver.ports import CdiStore, ClaimStore
from kubelet_plugin.recovery import Recovery
from kubelet_plugin.state import NodeState
from kubelet_plugin.turns import Turns
from kubelet_plugin.witnesses import CONFIRM_S, INTERVAL_S, Witnesses

log = structlog.get_logger(__name__)


class Orphans:
    """Looks for such files at once and every ten minutes; a first answer is confirmed sooner."""

    def __init__(
        self,
        state: NodeState,
        turns: Turns,
        stores: tuple[ClaimStore, CdiStore],
        recovery: Recovery,
        witnesses: Witnesses,
    ) -> None:
        self._state = state
        self._turns = turns
        self._store, self._cdi = stores
        self._recovery = recovery
        self._witnesses = witnesses

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await self._witnesses.clock.sleep(CONFIRM_S if self._witnesses.doubts else INTERVAL_S)

    async def look(self) -> None:
        """Settle what can be settled now."""
        try:
            files = await asyncio.to_thread(self._cdi.claims)
        except RecordError as error:
            log.warning("CDI files that nobody holds cannot be looked for", error=str(error))
            return
        orphans = files - self._state.records.keys()
        self._witnesses.forget_all_but(orphans)
        for uid in sorted(orphans):
            with bound_contextvars(claim_uid=uid):
                try:
                    await self._settle(uid)
                except DraError as error:
                    log.warning("a CDI file without a record stays for now", error=str(error))

    async def _settle(self, uid: str) -> None:
        """Everybody is asked before it is this one's turn: the claim's own calls must not wait for their answers."""
        note = self._cdi.note(uid)
        if note is None:
            log.warning("a CDI file without a record says nothing of its claim, and is left alone")
            return
        noted = self._noted(uid, note)
        is_gone = noted is None or await self._witnesses.agree_that_gone(noted)
        if not is_gone and uid in self._witnesses.doubts:
            return
        async with self._turns.claim(uid):
            if uid in self._state.records or self._recovery.is_damaged(uid):
                return
            if is_gone:
                log.info("removing the CDI file of a claim that is gone")
                await self._recovery.remove_file(uid)
            elif noted is not None:
                await self._recovery.adopt(noted, note)

    def _noted(self, uid: str, note: str) -> ClaimRecord | None:
        """The record, None for one of a former boot; RecordError for what cannot be understood, and is left alone."""
        try:
            return self._store.noted(uid, note)
        except RecordOutdated:
            return None
