"""Claims that come and go without end, as pods' do, each followed through its whole life."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from dra_driver.model.errors import ClaimError
from dra_driver.model.kinds import RESOURCE_CLAIM
from dra_driver.model.record import PreparedDevice
from dra_driver.ports import JsonObject
from tests.process.conftest import Cluster, Plugin
from tests.process.rollout import Kubelet

HOLD_S = (0.0, 0.1)
"""How long a pod of the load runs."""

_Answer = TypeVar("_Answer")


@dataclass
class Load:
    """`failures` are calls that failed; `undone` what a prepared claim had lost when it was looked at."""

    kubelet: Kubelet
    cluster: Cluster
    plugin: Plugin
    rng: random.Random
    failures: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    calls_s: list[float] = field(default_factory=list)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, devices: Sequence[str]) -> None:
        """One pod after the other on each device, and on the last two of them with a successor that waits; until `stop`."""
        *alone, first, second = devices
        async with asyncio.TaskGroup() as tasks:
            for device in alone:
                tasks.create_task(self._repeat(self._pod, device))
            for device in (first, second):
                tasks.create_task(self._repeat(self._two_pods, device))

    def stop(self) -> None:
        """Every pod that is there comes to its end, and no other begins."""
        self._stopping.set()

    async def hold(self, device: str) -> tuple[JsonObject, tuple[PreparedDevice, ...]]:
        """A claim that is prepared and stays so, and what the kubelet was told."""
        claim = await self.cluster.new_claim(device)
        return claim, await self.kubelet.prepare(claim)

    async def check(self, claim: JsonObject, told: tuple[PreparedDevice, ...]) -> None:
        """A prepared claim is asked for again: the same answer, with its record and its CDI file in place."""
        uid = claim["metadata"]["uid"]
        again = await self._call(lambda: self.kubelet.prepare(claim))
        if again is not None and again != told:
            self.undone.append(f"claim {uid}: {again} instead of {told}")
        files = [*self.plugin.cdi_dir.glob(f"*{uid}.json"), *self.plugin.records(uid)]
        if len(files) != 2:
            self.undone.append(f"claim {uid}: only {files}")

    async def _repeat(self, life: Callable[[str], Awaitable[None]], device: str) -> None:
        while not self._stopping.is_set():
            await life(device)

    async def _pod(self, device: str) -> None:
        claim = await self.cluster.new_claim(device)
        told = await self._call(lambda: self.kubelet.prepare(claim))
        if told is not None:
            await asyncio.sleep(self.rng.uniform(*HOLD_S))
            await self.check(claim, told)
        await self._end(claim)

    async def _two_pods(self, device: str) -> None:
        """The second is asked for while the first still has the device, and served once that has gone."""
        first, second = [await self.cluster.new_claim(device) for _ in range(2)]
        await self._call(lambda: self.kubelet.prepare(first))
        waiting = asyncio.create_task(self._call(lambda: self.kubelet.prepare(second)))
        await asyncio.sleep(self.rng.uniform(*HOLD_S))
        await self._end(first)
        told = await waiting
        if told is not None:
            await self.check(second, told)
        await self._end(second)

    async def _end(self, claim: JsonObject) -> None:
        """Released, however often a kubelet has to ask, and gone from the API."""
        if not await self._call(lambda: self._unprepare(claim)):
            await asyncio.sleep(HOLD_S[1])
            return await self._end(claim)
        name = claim["metadata"]["name"]
        await self.cluster.api.delete(RESOURCE_CLAIM, name, namespace="default")
        return None

    async def _unprepare(self, claim: JsonObject) -> bool:
        await self.kubelet.unprepare(claim)
        return True

    async def _call(self, call: Callable[[], Awaitable[_Answer]]) -> _Answer | None:
        """The answer, or None where the call failed."""
        began_s = time.monotonic()
        try:
            return await call()
        except ClaimError as error:
            self.failures.append(str(error))
            return None
        finally:
            self.calls_s.append(time.monotonic() - began_s)
