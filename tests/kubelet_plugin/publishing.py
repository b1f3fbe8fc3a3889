"""A publisher without its process: the emulated API server, and a clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from dra_driver.kube.watch import Cache, Scope
from dra_driver.model.inventory import Inventory
from dra_driver.model.kinds import NODE, RESOURCE_CLAIM, RESOURCE_SLICE, Kind
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.gates import Gates
from dra_driver.sandbox.apiserver.local import LocalApi
from dra_driver.sandbox.apiserver.store import Store
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from kubelet_plugin.publisher import Publisher
from kubelet_plugin.state import NodeState
from kubelet_plugin.targets import PublishPolicy
from tests.kubelet_plugin.conftest import NODE as NODE_NAME
from tests.kubelet_plugin.conftest import POOL, machine_of, telemetry_of

_TURNS = 10
"""More turns of the loop than any chain of wake-ups here takes: the API answers without ever suspending."""


class VirtualClock:
    """Time passes only in `advance`, from one sleeper's end to the next."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._numbers = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        awake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._sleepers, (self.now + seconds, next(self._numbers), awake))
        await awake

    async def advance(self, seconds: float) -> None:
        """Let that much time pass, and everything happen that happens in it."""
        end = self.now + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            until, _, awake = heappop(self._sleepers)
            if not awake.done():
                self.now = max(self.now, until)
                awake.set_result(None)
                await _settle()
        self.now = end


async def _settle() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class Call(NamedTuple):
    """A call of the API, and when it was made."""

    at: float
    verb: str
    kind: str
    name: str


class WatchedApi(LocalApi):
    """Notes every call, and has `before` called first, which may change the world or fail."""

    def __init__(self, clock: VirtualClock, gates: Gates | None = None) -> None:
        super().__init__(Store(), gates=gates)
        self.clock = clock
        self.calls: list[Call] = []
        self.before: Callable[[Call], Any] | None = None

    def count(self, *verbs: str, kind: str = "ResourceSlice") -> int:
        """How many such calls there were."""
        return sum(call.verb in verbs and call.kind == kind for call in self.calls)

    async def _note(self, verb: str, kind: Kind, name: str = "") -> None:
        call = Call(self.clock.now, verb, kind.kind, name)
        self.calls.append(call)
        if self.before is not None:
            await self.before(call)

    async def list(self, kind: Kind, **more: Any) -> Any:
        await self._note("list", kind)
        return await super().list(kind, **more)

    async def create(self, kind: Kind, body: JsonObject, **more: Any) -> JsonObject:
        if not more.get("dry_run"):
            await self._note("create", kind, body["metadata"].get("name", ""))
        return await super().create(kind, body, **more)

    async def replace(self, kind: Kind, body: JsonObject) -> JsonObject:
        await self._note("replace", kind, body["metadata"]["name"])
        return await super().replace(kind, body)

    async def delete(self, kind: Kind, name: str, **more: Any) -> None:
        await self._note("delete", kind, name)
        await super().delete(kind, name, **more)


class Events:
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def event(self, regarding: JsonObject, *, level: str, reason: str, message: str) -> None:
        self.said.append((reason, message))

    @property
    def reasons(self) -> set[str]:
        return {reason for reason, _ in self.said}


class Lab:
    """One node's publisher. `api` is what it uses; `world` is the same API server as everybody else uses it."""

    def __init__(
        self,
        inventory: Inventory,
        *,
        gates: Gates | None = None,
        policy: PublishPolicy | None = None,
    ) -> None:
        self.clock = VirtualClock()
        self.api = WatchedApi(self.clock, gates)
        self.world = LocalApi(self.api._store, gates=gates)
        self.events = Events()
        self.policy = policy or PublishPolicy()
        self.inventory = inventory
        self.begin()

    def begin(self) -> None:
        """A new process, which has looked at the hardware."""
        self.state = NodeState(NODE_NAME, boot_id="boot", owner="test")
        self.state.observe(self.inventory)
        self.publisher = Publisher(
            self.api, self.state, self.policy, telemetry_of(self.events), self.clock
        )

    def observe(self, inventory: Inventory) -> None:
        """The hardware changed."""
        self.inventory = inventory
        self.state.observe(inventory)

    @asynccontextmanager
    async def running(self, *, watching: bool = True) -> AsyncIterator[None]:
        """The publisher at work, with or without a watch on its slices, and the first publication behind it."""
        selector = f"spec.nodeName={NODE_NAME},spec.driver={DRIVER_NAME}"
        scope = Scope(kind=RESOURCE_SLICE, selectors={"fieldSelector": selector})
        cache = Cache(
            self.world,
            scope,
            on_change=lambda _: self.publisher.trigger(),
            clock=self.clock,
            rng=random.Random(1),
        )
        tasks = [asyncio.create_task(self.publisher.run())]
        if watching:
            tasks.append(asyncio.create_task(cache.run()))
        try:
            await self.clock.advance(1)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def slices(self) -> list[JsonObject]:
        """All that is stored."""
        return list((await self.world.list(RESOURCE_SLICE)).items)

    async def devices(self) -> dict[str, JsonObject]:
        """All that are published, by name."""
        return {
            d["name"]: d for item in await self.slices() for d in item["spec"].get("devices", ())
        }

    async def taints(self) -> dict[str, list[str]]:
        """The names of all devices' taints, without our driver's domain, where there are any."""
        return {
            name: [taint["key"].rpartition("/")[2] for taint in device["taints"]]
            for name, device in (await self.devices()).items()
            if "taints" in device and not name.endswith("-monitor")
        }

    async def is_complete(self) -> bool:
        """Whether the one pool is."""
        slices = await self.slices()
        generations = {item["spec"]["pool"]["generation"] for item in slices}
        counts = {item["spec"]["pool"]["resourceSliceCount"] for item in slices}
        return len(generations) == 1 and counts == {len(slices)}

    async def claim(self, device: str, name: str = "claim") -> None:
        """A claim to which somebody's scheduler has given the device."""
        request = {"name": "r", "exactly": {"deviceClassName": "any"}}
        body = {"metadata": {"name": name}, "spec": {"devices": {"requests": [request]}}}
        await self.world.create(RESOURCE_CLAIM, body, namespace="default")
        result = {"driver": DRIVER_NAME, "pool": POOL, "device": device, "request": "r"}
        status = {"allocation": {"devices": {"results": [result]}}}
        where = {"namespace": "default", "subresource": "status"}
        await self.world.patch(RESOURCE_CLAIM, name, {"status": status}, **where)

    async def release(self, name: str = "claim") -> None:
        """Nobody needs the claim any more."""
        await self.world.delete(RESOURCE_CLAIM, name, namespace="default")

    async def wipe(self) -> None:
        """What a kubelet does when it starts."""
        for item in await self.slices():
            await self.world.delete(RESOURCE_SLICE, item["metadata"]["name"])


async def new_lab(inventory: Inventory, **more: Any) -> Lab:
    """A lab whose API server knows the node."""
    lab = Lab(inventory, **more)
    await lab.world.create(NODE, {"metadata": {"name": NODE_NAME}})
    return lab


def small_inventory(
    folder: Path, *, gpus: int = 2, profiles: frozenset[str] = frozenset({"3g.40gb", "7g.80gb"})
) -> Inventory:
    """H100s with a few profiles that overlap: not many devices, so quick to publish."""
    nvml = SimulatedNvml(machine_of("H100-SXM5-80GB", gpus), node=NODE_NAME, state_dir=folder)
    found = discover(NvidiaBackend(nvml))
    slim = []
    for gpu in found.gpus:
        assert gpu.partitioning is not None
        kept = tuple(p for p in gpu.partitioning.profiles if p.name in profiles)
        slim.append(replace(gpu, partitioning=replace(gpu.partitioning, profiles=kept)))
    return replace(found, gpus=tuple(slim))
