"""Prepare and unprepare, as the kubelet's calls mean them: idempotent, joined, and waiting where waiting helps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import structlog

from dra_driver.kube.codec import claim_from_json
from dra_driver.model.claim import Claim, ClaimRef
from dra_driver.model.errors import ClaimReplaced, DeviceHeld, RecordError
from dra_driver.model.kinds import RESOURCE_CLAIM
from dra_driver.model.record import ClaimRecord, PreparedDevice
from dra_driver.ports import Damage, KubeApi
from kubelet_plugin.executor import Executor
from kubelet_plugin.planner import plan_prepare
from kubelet_plugin.state import NodeState

log = structlog.get_logger(__name__)
T = TypeVar("T")

DEADLINE_S = 45.0
"""What a kubelet allows for a call."""
REPLY_MARGIN_S = 3.0
"""Left of the caller's deadline for carrying out and answering, once a wait is over."""


class Claims:
    """`api` gives the API server's client as soon as there is one; replays and unprepares never ask for it."""

    def __init__(
        self,
        state: NodeState,
        executor: Executor,
        api: Callable[[], Awaitable[KubeApi]],
        damages: Collection[Damage],
    ) -> None:
        self._state = state
        self._executor = executor
        self._api = api
        self._damages = {damage.claim_uid: damage for damage in damages}
        self._flights: dict[tuple[str, str], asyncio.Task[Any]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def prepare(
        self, claim: ClaimRef, *, deadline: float | None
    ) -> tuple[PreparedDevice, ...]:
        """The claim's devices, ready for containers. A caller that goes away does not stop what has begun."""
        by = asyncio.get_running_loop().time() + DEADLINE_S if deadline is None else deadline
        return await self._join(claim, "prepare", lambda: self._prepare(claim, by - REPLY_MARGIN_S))

    async def unprepare(self, claim: ClaimRef) -> None:
        """Release whatever the claim holds here. Unknown claims hold nothing."""
        await self._join(claim, "unprepare", lambda: self._unprepare(claim))

    async def finish_calls(self) -> None:
        """Return when no call is being worked on."""
        while self._flights:
            await asyncio.wait(self._flights.values())

    async def _join(
        self, claim: ClaimRef, operation: str, start: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        """Equal calls share one execution; prepare and unprepare of one claim take turns."""
        key = (claim.uid, operation)
        if key not in self._flights:
            lock = self._locks.setdefault(claim.uid, asyncio.Lock())
            task = asyncio.create_task(_locked(lock, start))
            self._flights[key] = task
            task.add_done_callback(lambda done: self._land(key, done))
        flight: asyncio.Task[T] = self._flights[key]
        return await asyncio.shield(flight)

    def _land(self, key: tuple[str, str], task: asyncio.Task[Any]) -> None:
        del self._flights[key]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody need have waited

    async def _prepare(self, claim: ClaimRef, wait_until: float) -> tuple[PreparedDevice, ...]:
        self._refuse_damaged(claim)
        record = self._state.records.get(claim.uid)
        if record is not None and record.preparation is not None and not record.releasing:
            return (await self._executor.verify(record)).devices
        if record is not None:
            await self._executor.release(claim.uid)
        plan = await self._reserve(await self._read(claim), wait_until)
        devices = (await self._executor.carry_out(plan)).devices
        log.info("prepared", devices=[device.device for device in devices])
        return devices

    async def _unprepare(self, claim: ClaimRef) -> None:
        self._refuse_damaged(claim)
        if claim.uid in self._state.records:
            await self._executor.release(claim.uid)
            log.info("unprepared")

    async def _reserve(self, claim: Claim, wait_until: float) -> ClaimRecord:
        """The plan, once nobody else holds its devices.

        Waiting inside the call is kind: a failed prepare is not tried again for 90 s, and a predecessor that is going away
        takes two.
        """
        while True:
            try:
                plan = plan_prepare(self._state.snapshot(claim))
            except DeviceHeld as held:
                log.info("waiting for a device", held=str(held))
                try:
                    async with asyncio.timeout_at(wait_until):
                        await self._state.wait_for_release()
                except TimeoutError:
                    raise held from None
            else:
                self._state.reserve(plan)
                return plan

    async def _read(self, claim: ClaimRef) -> Claim:
        api = await self._api()
        found = claim_from_json(
            await api.get(RESOURCE_CLAIM, claim.name, namespace=claim.namespace)
        )
        if found.ref.uid != claim.uid:
            raise ClaimReplaced(
                f"claim {claim} has UID {found.ref.uid} by now, not {claim.uid}; the kubelet asks again for the new one"
            )
        return found

    def _refuse_damaged(self, claim: ClaimRef) -> None:
        damage = self._damages.get(claim.uid)
        if damage is not None:
            raise RecordError(
                f"claim {claim}: {damage.message}; when its pod has ended, remove that file and restart the plugin"
            )


async def _locked(lock: asyncio.Lock, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    async with lock:
        return await start()
