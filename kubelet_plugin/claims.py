"""Prepare and unprepare, as the kubelet's calls mean them: idempotent, joined, and waiting where waiting helps."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from dra_driver.model.claim import AllocatedClaim, ClaimRef
from dra_driver.model.errors import ClaimReleased, DeviceHeld, DraError, VendorError
from dra_driver.model.record import ClaimRecord, PreparedDevice
from kubelet_plugin.claim_source import ClaimSource
from kubelet_plugin.executor import Executor
from kubelet_plugin.flights import Flight, Flights
from kubelet_plugin.planner import plan_prepare
from kubelet_plugin.reconciler import Reconciler
from kubelet_plugin.recovery import Recovery
from kubelet_plugin.slow_lane import end_step
from kubelet_plugin.state import NodeState
from kubelet_plugin.telemetry import Telemetry
from kubelet_plugin.turns import Turns

log = structlog.get_logger(__name__)

DEADLINE_S = 45.0
"""What a kubelet allows for a call."""
REPLY_MARGIN_S = 3.0
"""Left of the caller's deadline for carrying out and answering, once a wait is over."""
LOOK_AGAIN_S = 0.5
"""The pause of a wait for what nobody here is told of: another process's work, or a change of the claim."""


class Claims:
    """The claims' life on this node. Replays and unprepares never ask `source`."""

    def __init__(
        self,
        state: NodeState,
        turns: Turns,
        executor: Executor,
        mending: tuple[Recovery, Reconciler],
        outside: tuple[ClaimSource, Telemetry],
    ) -> None:
        self._state = state
        self._turns = turns
        self._executor = executor
        self._recovery, self._reconciler = mending
        self._source, self._telemetry = outside
        self._flights = Flights()

    async def prepare(
        self, claim: ClaimRef, *, deadline: float | None
    ) -> tuple[PreparedDevice, ...]:
        """The claim's devices, ready for containers. A caller that goes away does not stop what has begun."""
        by = asyncio.get_running_loop().time() + DEADLINE_S if deadline is None else deadline
        return await self._flights.join(
            claim.uid,
            Flight("prepare"),
            lambda flight: self._prepare(claim, by - REPLY_MARGIN_S, flight),
        )

    async def unprepare(self, claim: ClaimRef) -> None:
        """Release whatever the claim holds here. Unknown claims hold nothing."""
        await self._flights.join(
            claim.uid, Flight("unprepare", committed=True), lambda _: self._unprepare(claim)
        )

    async def finish_calls(self) -> None:
        """Return when no call is being worked on."""
        await self._flights.finish()

    async def _prepare(
        self, claim: ClaimRef, wait_until: float, flight: Flight
    ) -> tuple[PreparedDevice, ...]:
        while True:
            if not self._is_new(claim):
                async with self._turns.claim(claim.uid):
                    flight.committed = True
                    record = await self._usable(claim)
                    if record is not None:
                        return (await self._executor.verify(record)).devices
                flight.reconsider()
            changed = self._state.changed
            try:
                found = await self._source.read(claim, until=wait_until)
                await end_step()
                devices = await self._begin(found, flight)
            except (ClaimReleased, DeviceHeld, VendorError) as obstacle:
                if flight.committed or not obstacle.retryable:
                    raise
                await self._wait(changed, wait_until, obstacle)
            else:
                if devices is not None:
                    self._source.prepared(found)
                    log.info("prepared", devices=[device.device for device in devices])
                    return devices

    def _is_new(self, claim: ClaimRef) -> bool:
        """Whether it is sure, without a look, that nothing was done for the claim."""
        is_known = claim.uid in self._state.records or self._recovery.is_damaged(claim.uid)
        return self._turns.up_to_date() and not is_known

    async def _usable(self, claim: ClaimRef) -> ClaimRecord | None:
        """The claim's record, if it is prepared; otherwise what is half done, or was damaged, is out of the way."""
        await self._recovery.mend(claim)
        record = self._state.records.get(claim.uid)
        if record is not None and (record.preparation is None or record.releasing):
            await self._recovery.release(record)
            return None
        return record

    async def _begin(
        self, claim: AllocatedClaim, flight: Flight
    ) -> tuple[PreparedDevice, ...] | None:
        """Plan and carry out; None where another process was quicker, or its GPUs are others by now.

        Raises DeviceHeld or a retryable VendorError, with the flight not committed, where waiting may help.
        """
        gpus = self._state.gpus_of(claim)
        async with self._turns.claim(claim.ref.uid), self._turns.gpus(gpus):
            facts = self._state.snapshot(claim)
            if claim.ref.uid in self._state.records or facts.gpus(exclusive=True) != gpus:
                return None
            self._turns.require_all()
            with self._telemetry.phase("plan"):
                record = plan_prepare(facts)
            flight.committed = True
            return (await self._executor.carry_out(record)).devices

    async def _unprepare(self, claim: ClaimRef) -> None:
        async with self._turns.claim(claim.uid):
            await self._recovery.mend(claim, to_release=True)
            record = self._state.records.get(claim.uid)
            if record is not None:
                await self._recovery.release(record)
                log.info("unprepared")
        self._source.released(claim)

    async def _wait(self, changed: asyncio.Event, until: float, obstacle: DraError) -> None:
        """Until something may have changed; the obstacle itself when time is up.

        Waiting inside the call is kind: a failed prepare is not tried again for 90 s, and a predecessor that is going away
        takes two.
        """
        log.info("waiting", obstacle=str(obstacle))
        if isinstance(obstacle, DeviceHeld):
            self._reconciler.suspect(obstacle.holder)
        try:
            with self._telemetry.phase("wait"):
                async with asyncio.timeout_at(until):
                    await self._something_new(changed, told=not isinstance(obstacle, ClaimReleased))
        except TimeoutError:
            raise obstacle from None

    async def _something_new(self, changed: asyncio.Event, *, told: bool) -> None:
        """Also after a pause, where we are not `told`, or another process has come that does not tell us."""
        peace = self._turns.peace()
        while not changed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await changed.wait()
            if not told or peace is None or self._turns.peace() != peace:
                return
