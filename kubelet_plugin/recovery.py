"""What processes that died have left: half-done work is undone, lost CDI files are written again, damaged records rebuilt.

All of it from what is on the node, with the API server down.
"""

from __future__ import annotations

import asyncio

import structlog
from structlog.contextvars import bound_contextvars

from dra_driver.model.claim import ClaimRef
from dra_driver.model.errors import DraError, RecordError
from dra_driver.model.reasons import Reason
from dra_driver.model.record import ClaimRecord
from dra_driver.ports import CdiStore, ClaimStore, Damage
from kubelet_plugin.executor import Executor
from kubelet_plugin.state import NodeState
from kubelet_plugin.telemetry import Telemetry
from kubelet_plugin.turns import Turns

log = structlog.get_logger(__name__)


class Recovery:
    """Needs `restore` before the first call is served; `run` goes on beside the calls."""

    def __init__(
        self,
        state: NodeState,
        turns: Turns,
        executor: Executor,
        stores: tuple[ClaimStore, CdiStore],
        telemetry: Telemetry,
    ) -> None:
        self._state = state
        self._turns = turns
        self._executor = executor
        self._store, self._cdi = stores
        self._telemetry = telemetry
        self._damages: dict[str, Damage] = {}

    def restore(self) -> None:
        """Take over what the journal says. Of damaged records, what is known elsewhere goes on holding its devices."""
        records, damages = self._store.load()
        self._state.refresh(records)
        for damage in damages:
            self._damages[damage.claim_uid] = damage
            known = self._known(damage)
            if known is not None:
                self._state.reserve(known)
            log.error("a record is damaged", claim_uid=damage.claim_uid, why=damage.message)
        self._turns.accept_damage(frozenset(self._damages))
        if not damages:  # else nobody knows what they use
            prepared = [one.preparation for one in records.values() if one.preparation is not None]
            self._cdi.sweep({i for one in prepared for d in one.devices for i in d.cdi_ids})

    async def run(self) -> None:
        """Bring every claim into a whole state, one after the other; one claim's trouble is its own."""
        for uid, record in list(self._state.records.items()):
            with bound_contextvars(claim=str(record.claim), claim_uid=uid):
                try:
                    await self.settle(record.claim)
                except DraError as error:
                    log.warning(
                        "a claim is not as it should be yet; its next call tries again",
                        error=str(error),
                    )
            await asyncio.sleep(0)  # calls may come in between

    async def mend(self, claim: ClaimRef, *, to_release: bool = False) -> None:
        """The claim's record can be worked with when this returns; the caller has its turn on the claim.

        A record that was damaged is written anew: from its CDI file with the hardware that is there now (which is not needed
        `to_release` it), or as far as its lines are sound. RecordError where nothing is known.
        """
        damage = self._damages.get(claim.uid)
        if damage is None:
            return
        if self._is_sound_by_now(claim):
            return
        known = self._known(damage)
        if known is None:
            self._telemetry.about_claim(claim, Reason.RECORD_DAMAGED, damage.message)
            raise RecordError(f"claim {claim}: {damage.message}; {_fix(damage)}")
        preparation = known.preparation
        if known is not damage.salvaged and not to_release:
            preparation = await self._executor.describe(known)
        note = self._store.note(known)
        rebuilt = await asyncio.to_thread(self._store.rebuild, claim.uid, note, preparation)
        self._state.reserve(rebuilt)
        del self._damages[claim.uid]
        self._tell_rebuilt(claim, damage.message)

    async def adopt(self, noted: ClaimRecord, note: str) -> None:
        """A claim that is in use, and whose record is lost, has one again; the caller has its turn on the claim.

        Its devices are held from the first moment on: nobody else is to get them while the disk is waited for.
        """
        uid = noted.claim.uid
        gpus = {grant.gpu: grant.pool for grant in noted.grants if not grant.monitor}
        async with self._turns.gpus(gpus):
            self._state.reserve(noted)
        try:
            preparation = await self._executor.describe(noted)
            rebuilt = await asyncio.to_thread(self._store.rebuild, uid, note, preparation)
        except Exception:
            self._state.forget(uid)
            raise
        self._state.reserve(rebuilt)
        self._tell_rebuilt(noted.claim, "the claim's record was lost")

    async def remove_file(self, uid: str) -> None:
        """The CDI file of a claim that holds nothing goes."""
        await asyncio.to_thread(self._cdi.remove, uid)
        self._telemetry.metrics.recovery("cdi_removed")

    @property
    def damaged(self) -> int:
        """How many claims' records wait to be written anew."""
        return len(self._damages)

    def is_damaged(self, uid: str) -> bool:
        """Whether the claim's record waits to be written anew."""
        return uid in self._damages

    def _tell_rebuilt(self, claim: ClaimRef, why: str) -> None:
        message = f"{why}; it was written anew"
        log.warning(message)
        self._telemetry.about_claim(claim, Reason.RECORD_REBUILT, message)
        self._telemetry.metrics.recovery("record_rebuilt")

    async def settle(self, claim: ClaimRef) -> None:
        """The claim is prepared with its CDI file, or holds nothing, when this returns; work that nobody goes on with is undone."""
        async with self._turns.claim(claim.uid):
            await self.mend(claim)
            record = self._state.records.get(claim.uid)
            if record is None:
                return
            if record.preparation is not None and not record.releasing:
                self._executor.restore_file(record)
                return
            await self.release(record)
            log.info("half-done work is undone")
            self._telemetry.metrics.recovery("work_undone")

    async def release(self, record: ClaimRecord) -> None:
        """The claim holds nothing any more; the caller has its turn on it."""
        async with self._turns.gpus(record.built_on):
            await self._executor.release(record.claim.uid)

    async def release_gone(self, seen: ClaimRecord) -> None:
        """Release what the claim holds, unless it was released, or even prepared anew, since it was seen like this."""
        uid = seen.claim.uid
        async with self._turns.claim(uid):
            if self._state.records.get(uid) != seen:
                return
            await self.release(seen)
            devices = [grant.device for grant in seen.grants]
            log.warning("released what a claim held that is gone", devices=devices)
            self._telemetry.metrics.recovery("claim_released")

    def _is_sound_by_now(self, claim: ClaimRef) -> bool:
        """The record could not be read for a moment only."""
        try:
            record = self._store.read(claim.uid)
        except RecordError:
            return False
        if record is None:
            return False
        self._state.reserve(record)
        del self._damages[claim.uid]
        return True

    def _known(self, damage: Damage) -> ClaimRecord | None:
        """The CDI file was written when all was done; what is left of the lines may miss their end."""
        if damage.newer:
            return None
        try:
            note = self._cdi.note(damage.claim_uid)
            return damage.salvaged if note is None else self._store.noted(damage.claim_uid, note)
        except RecordError as error:
            log.warning("a CDI file says nothing of its claim", why=str(error))
            return damage.salvaged


def _fix(damage: Damage) -> str:
    if damage.newer:
        return "run that release again until the claim's pod has ended"
    return "when its containers have stopped, remove that file and restart the plugin"
