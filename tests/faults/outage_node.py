"""A whole node in virtual time beside an API server that can be away: calls, publisher, watch, reconciler and Events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from unittest.mock import patch

from dra_driver.config.machine import Machine
from dra_driver.kube import watch
from dra_driver.kube.events import EventRecorder, EventSource
from dra_driver.model.errors import DraError, Unavailable
from dra_driver.model.kinds import NODE, Kind
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import JsonObject, WatchEvent
from dra_driver.sandbox.apiserver.local import LocalApi
from dra_driver.sandbox.apiserver.server import ApiServer
from dra_driver.sandbox.apiserver.store import Store
from kubelet_plugin import duties, node
from kubelet_plugin.claims import DEADLINE_S
from kubelet_plugin.duties import Duties
from kubelet_plugin.targets import PublishPolicy
from tests.faults.interleaved_node import UnsyncedPlugin
from tests.faults.virtual_time import LoopClock, VirtualWorkers
from tests.kubelet_plugin.conftest import NODE as NODE_NAME
from tests.kubelet_plugin.conftest import POOL, CountingApi, ref, telemetry_of
from tests.process.conftest import Cluster

T = TypeVar("T")


class OutageApi:
    """`KubeApi` on a store; while `away` every request is noted, and fails after a moment, and watches end."""

    def __init__(self, store: Store) -> None:
        self._inner = LocalApi(store)
        self.away = False
        self.asked_at: list[float] = []
        self._left = asyncio.Event()

    def leave(self) -> None:
        self.away = True
        self._left.set()

    def come_back(self) -> None:
        self.away = False
        self._left = asyncio.Event()

    def __getattr__(self, verb: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def ask(*words: Any, **more: Any) -> Any:
            await self._reach()
            return await getattr(self._inner, verb)(*words, **more)

        return ask

    async def watch(self, kind: Kind, **more: Any) -> AsyncGenerator[WatchEvent, None]:
        await self._reach()
        events = self._inner.watch(kind, **more)
        left = asyncio.ensure_future(self._left.wait())
        following = asyncio.ensure_future(anext(events))
        try:
            while True:
                await asyncio.wait({following, left}, return_when=asyncio.FIRST_COMPLETED)
                if left.done():
                    raise Unavailable("the watch was cut")
                yield following.result()
                following = asyncio.ensure_future(anext(events))
        finally:
            left.cancel()
            following.cancel()
            await asyncio.wait([following])
            await events.aclose()

    async def _reach(self) -> None:
        if self.away:
            self.asked_at.append(asyncio.get_running_loop().time())
            await asyncio.sleep(0.1)
            raise Unavailable("no answer")
        await asyncio.sleep(0.001)


@contextmanager
def virtual_parts() -> Iterator[None]:
    """Everything that the plugin makes for itself keeps virtual time while the block runs."""
    with (
        patch.object(node, "Workers", VirtualWorkers),
        patch.object(duties, "SystemClock", LoopClock),
        patch.object(watch, "SystemClock", LoopClock),
    ):
        yield


class Alone:
    """An instance that is alone, until a newer one takes over."""

    name = "test"

    def __init__(self) -> None:
        self.is_newest = True

    def alone(self) -> bool:
        return self.is_newest

    def leads(self) -> bool:
        return self.is_newest

    def peace(self) -> int:
        return 1


class OutageNode:
    """The plugin, and a kubelet's calls to it."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        store = Store()
        self.cluster = Cluster(cast("ApiServer", SimpleNamespace(store=store)))
        self.api = OutageApi(store)
        source = EventSource(component=DRIVER_NAME, host=NODE_NAME)
        recorder = EventRecorder(cast("Any", self.api), source, clock=LoopClock())
        self.plugin = UnsyncedPlugin(folder, machine, cast("CountingApi", self.api))
        self.plugin.telemetry = telemetry_of(recorder)
        setattr(self.plugin, "clock", LoopClock())  # noqa: B010 (one test clock for another)
        self.instance = Alone()
        setattr(self.plugin, "instance", self.instance)  # noqa: B010 (as much of it as is asked)
        self._recorder = recorder
        self._tasks: list[asyncio.Task[Any]] = []

    async def start(self) -> None:
        """Everything that the process does by itself, until the slices are there."""
        await self.cluster.api.create(NODE, {"metadata": {"name": NODE_NAME}})
        await self.plugin.start()
        policy = PublishPolicy(pools=frozenset({POOL}))
        parts = (self.plugin.node, cast("Any", self.api), self.plugin.telemetry, policy)
        self.duties = Duties(cast("Any", self.plugin.instance), *parts)
        background = (self.duties.run(), self._recorder.run(), self._look_again())
        self._tasks = [asyncio.create_task(one) for one in background]
        await self.duties._publisher.published.wait()

    async def stop(self) -> None:
        """Nothing goes on; what ended by itself is raised."""
        for task in self._tasks:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def prepare(self, claim: JsonObject) -> str:
        """As the kubelet would; what it is told, "" where all is well."""
        deadline = asyncio.get_running_loop().time() + DEADLINE_S
        try:
            await self.plugin.claims.prepare(ref(claim), deadline=deadline)
        except DraError as error:
            return str(error)
        return ""

    async def unprepare(self, claim: JsonObject) -> str:
        """Likewise."""
        try:
            await self.plugin.claims.unprepare(ref(claim))
        except DraError as error:
            return str(error)
        return ""

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(4)
            await self.plugin.node.survey.ping()
