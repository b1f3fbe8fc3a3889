"""Two instances of one driver on a node, as during a rolling update."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from structlog.testing import capture_logs

from dra_driver.model.claim import ClaimRef
from dra_driver.model.record import PreparedDevice
from dra_driver.wire.sockets import serving
from kubelet_plugin.app import HANG_UP_S
from kubelet_plugin.health_service import DeviceHealth, Health, HealthBoard, HealthService
from kubelet_plugin.registration import Registration
from kubelet_plugin.service import DraService
from kubelet_plugin.sockets import PluginSockets, plugin_sockets
from tests.kubelet_plugin.conftest import Recorded, telemetry_of
from tests.sandbox.kubelet.lab import Lab, eventually

DRIVER = "a.example.com"


class NotedHealth(HealthService):
    """Notes that the kubelet's connection is there: the stream is the first that comes over it."""

    def __init__(self, board: HealthBoard, connected: asyncio.Event) -> None:
        super().__init__(board)
        self._connected = connected

    async def NodeWatchResources(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        self._connected.set()
        async for message in super().NodeWatchResources(request, context):
            yield message


@dataclass
class Instance:
    """Our plugin's services in front of claims that cost nothing; `prepared` are the claims' names, in order."""

    lab: Lab
    uid: str
    prepared: list[str] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    board: HealthBoard = field(default_factory=HealthBoard)
    registration: Registration = field(init=False)

    def __post_init__(self) -> None:
        self.may_answer.set()
        endpoint = self.sockets.service
        self.registration = Registration(driver=DRIVER, endpoint=endpoint)

    @property
    def sockets(self) -> PluginSockets:
        return plugin_sockets(self.lab.root, self.lab.registry, driver=DRIVER, pod_uid=self.uid)

    async def prepare(self, claim: ClaimRef, **_: Any) -> tuple[PreparedDevice, ...]:
        self.prepared.append(claim.name)
        await self.may_answer.wait()
        return (PreparedDevice(requests=("gpu",), pool="p", device="d", cdi_ids=()),)

    async def unprepare(self, claim: ClaimRef) -> None:
        pass

    async def finish_calls(self) -> None:
        pass

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """It serves, and stops in the plugin's order."""
        service = DraService(self, telemetry_of(Recorded()))

        def add_services(server: grpc.aio.Server) -> None:
            service.add_to(server)
            NotedHealth(self.board, self.connected).add_to(server)

        async with serving(self.sockets.service, add_services, grace_s=HANG_UP_S):
            try:
                async with serving(self.sockets.registration, self.registration.add_to):
                    yield
                    await service.finish_calls()
            finally:
                self.board.close()

    def tell(self, health: Health) -> None:
        self.board.update({("p", "d"): DeviceHealth(health=health)}, 0.0)

    async def until_connected(self) -> None:
        """The kubelet has registered it, and calls it from now on."""
        async with asyncio.timeout(10):
            await self.registration.registered.wait()
            await self.connected.wait()

    async def until_used(self) -> None:
        async def used() -> bool:
            return len(self.prepared) >= 3

        await eventually(used)

    async def until_asked(self, *claims: str) -> None:
        async def asked() -> bool:
            return self.prepared == list(claims)

        await eventually(asked)


async def test_the_successor_gets_the_calls_while_the_predecessor_finishes(lab: Lab) -> None:
    """What the old instance has begun it ends, and the pod runs by its answer; nobody is asked twice."""
    old, new = Instance(lab, "old"), Instance(lab, "new")
    for name in ("one", "two"):
        await lab.make_claim(name)
    old.may_answer.clear()
    async with lab.kubelet(), old.running():
        await lab.start_pod("first", "one")
        await old.until_asked("one")
        async with new.running():
            await new.until_connected()
            await lab.start_pod("second", "two")
            await lab.until_running("second")
            old.may_answer.set()
            await lab.until_running("first")
    assert (old.prepared, new.prepared) == (["one"], ["two"])


async def test_ten_upgrades_under_load_fail_no_call(lab: Lab) -> None:
    """Pods come and go all the time while one instance after the other takes over; every instance gets calls, none fails."""
    first, *successors = [Instance(lab, str(number)) for number in range(11)]
    with capture_logs() as lines:
        async with lab.kubelet(), asyncio.TaskGroup() as tasks, AsyncExitStack() as last:
            serving_now = AsyncExitStack()
            await serving_now.enter_async_context(first.running())
            await first.until_connected()
            load = [tasks.create_task(run_pods(lab, f"load-{number}")) for number in range(3)]
            for instance in successors:
                serving_next = AsyncExitStack()
                await serving_next.enter_async_context(instance.running())
                await instance.until_connected()
                await instance.until_used()
                await serving_now.aclose()
                serving_now = serving_next
            await last.enter_async_context(serving_now)
            errors = [line["error"] for line in lines if "error" in line]
            for task in load:
                task.cancel()
    assert [error for error in errors if "DRA driver" in error or "NodeP" in error] == []


async def run_pods(lab: Lab, name: str) -> None:
    """One pod after the other, each with a claim, without end."""
    for number in itertools.count():
        one = f"{name}-{number}"
        await lab.make_claim(one)
        await lab.start_pod(one, one)
        await lab.until_running(one)
        await lab.delete_pod(one)
        await lab.until_gone(one)


async def test_a_removed_registration_socket_is_registered_again(lab: Lab) -> None:
    """Also the DRA service's: the pods that come afterwards start as if nothing had been."""
    instance = Instance(lab, "1")
    for name in ("one", "two"):
        await lab.make_claim(name)
    async with instance.running(), lab.kubelet():
        await lab.start_pod("first", "one")
        await lab.until_running("first")
        instance.registration.registered.clear()
        instance.connected.clear()
        for path in (instance.sockets.service, instance.sockets.registration):
            path.unlink()
        await instance.until_connected()
        await lab.start_pod("second", "two")
        await lab.until_running("second")
    assert instance.prepared == ["one", "two"]


async def test_the_successor_s_health_is_shown_beside_and_after_the_predecessor(lab: Lab) -> None:
    """An old instance that says nothing of devices takes nothing away, also not by going."""
    old, new = Instance(lab, "old"), Instance(lab, "new")
    await lab.make_claim("gpu")
    async with lab.kubelet(), new.running():
        async with old.running():
            await new.until_connected()
            await lab.start_pod("pod", "gpu")
            new.tell(Health.HEALTHY)
            await lab.until_health("pod", {"resourceID": f"{DRIVER}/p/d", "health": "Healthy"})
        new.tell(Health.UNHEALTHY)
        await lab.until_health("pod", {"resourceID": f"{DRIVER}/p/d", "health": "Unhealthy"})
