"""Claims that the API server does not know any more, or knows to be elsewhere: the kubelet never unprepares some of them.

A node that was lost and came back, a kubelet that lost its state, a claim deleted by force: what they held would stay held. It is
released on two answers of the API server, some time apart, and only if the kubelet says that no pod uses it. No answer is no
reason to release anything.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection

import structlog
from structlog.contextvars import bound_contextvars

from dra_driver.model.errors import DraError, Unavailable
from dra_driver.model.record import ClaimRecord
from kubelet_plugin.recovery import Recovery
from kubelet_plugin.state import NodeState
from kubelet_plugin.witnesses import CONFIRM_S, INTERVAL_S, Witnesses

log = structlog.get_logger(__name__)


class Reconciler:
    """Releases what the witnesses agree is gone: every ten minutes, and at once where a prepare waits for it."""

    def __init__(
        self,
        state: NodeState,
        recovery: Recovery,
        witnesses: Witnesses,
    ) -> None:
        self._state = state
        self._recovery = recovery
        self._witnesses = witnesses
        self._clock = witnesses.clock
        self._suspects: set[str] = set()
        self._due = asyncio.Event()

    def suspect(self, uid: str) -> None:
        """Somebody waits for this claim to go: see soon whether it is gone already."""
        self._suspects.add(uid)
        self._due.set()

    async def run(self) -> None:
        """Look at all claims at once and then at intervals, at suspects when there are some."""
        all_due_at = self._clock.monotonic()
        while True:
            now = self._clock.monotonic()
            uids = frozenset(self._suspects) | self._witnesses.doubts
            if now >= all_due_at:
                uids = frozenset(self._state.records)
                jitter = random.uniform(0.9, 1.1)  # noqa: S311 (no secret: it keeps nodes apart)
                all_due_at = now + INTERVAL_S * jitter
            self._suspects.clear()
            await self.look(uids)
            await self._pause(all_due_at)

    async def look(self, uids: Collection[str]) -> None:
        """Release those of these claims that are surely gone, and undo what nobody goes on with.

        An API server that is away is asked once, not for each.
        """
        self._witnesses.forget_all_but(self._state.records.keys())
        for uid in sorted(uids):
            record = self._state.records.get(uid)
            if record is None:
                continue
            with bound_contextvars(claim=str(record.claim), claim_uid=uid):
                try:
                    await self._look_at(record)
                except Unavailable as error:
                    log.warning("it is not known whether a claim is still there", error=str(error))
                    return
                except DraError as error:
                    log.warning("a claim is not settled yet", error=str(error))

    async def _look_at(self, record: ClaimRecord) -> None:
        """What is begun goes to its end, even if this process hands over meanwhile."""
        if record.preparation is None or record.releasing:
            await asyncio.shield(self._recovery.settle(record.claim))
        elif await self._witnesses.agree_that_gone(record):
            await asyncio.shield(self._recovery.release_gone(record))

    async def _pause(self, all_due_at: float) -> None:
        """Until somebody is suspected, or else for the interval; a first answer is confirmed sooner."""
        left_s = max(0.0, all_due_at - self._clock.monotonic())
        pause_s = min(left_s, CONFIRM_S) if self._witnesses.doubts else left_s
        sleeping = asyncio.ensure_future(self._clock.sleep(pause_s))
        due = asyncio.ensure_future(self._due.wait())
        try:
            await asyncio.wait({sleeping, due}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            due.cancel()
        self._due.clear()
