"""The benchmark's kubelet: a process of its own that calls drivers over their sockets and says how long each call took.

`python -m tests.bench.load` reads one task a line from stdin and answers with one line, both JSON; it ends with its stdin:

    {"do": "call", "registry": FOLDER, "verb": "prepare" | "unprepare", "claims": [...], "at_once": 8}
    {"do": "introduce", "registry": FOLDER, "times": 500}
    {"do": "forget", "registry": FOLDER}
    {"do": "recover", "registry": FOLDER, "replayed": CLAIM, "fresh": CLAIM}
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc.aio

from dra_driver.ports import JsonObject
from dra_driver.wire.dra_v1 import api_pb2, api_pb2_grpc
from dra_driver.wire.registration_v1 import api_pb2 as registration
from dra_driver.wire.registration_v1 import api_pb2_grpc as registration_grpc

_CALL_LIMIT_S = 120.0
_START_LIMIT_S = 30.0
_LOOK_AGAIN_S = 0.002
_INTRODUCE_EVERY_S = 0.005
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
"""A connection that broke with a killed process is not waited for by the next."""


class Driver:
    """Connections to one driver, found as the kubelet finds it: by the sockets in its registry folder."""

    def __init__(self) -> None:
        self._connections = AsyncExitStack()
        self._introduction: registration_grpc.RegistrationAsyncStub
        self._service: api_pb2_grpc.DRAPluginAsyncStub

    async def find(self, registry: Path) -> None:
        """Connect to whoever answers first."""
        async with asyncio.timeout(_START_LIMIT_S):
            while True:
                for socket in registry.glob("*.sock"):  # noqa: ASYNC240 - a folder with one entry
                    if await self._connects(socket):
                        return
                await asyncio.sleep(_LOOK_AGAIN_S)

    async def forget(self) -> None:
        """Close the connections."""
        await self._connections.aclose()

    async def introduce(self) -> registration.PluginInfo:
        """GetInfo."""
        return await self._introduction.GetInfo(registration.InfoRequest(), timeout=5)

    async def prepare(self, claim: JsonObject) -> str:
        """NodePrepareResources for one claim; what went wrong."""
        request = api_pb2.NodePrepareResourcesRequest(claims=[api_pb2.Claim(**claim)])
        answer = await self._service.NodePrepareResources(request, timeout=_CALL_LIMIT_S)
        prepared = answer.claims[claim["uid"]]
        return prepared.error or ("" if prepared.devices else "no device")

    async def unprepare(self, claim: JsonObject) -> str:
        """NodeUnprepareResources for one claim; what went wrong."""
        request = api_pb2.NodeUnprepareResourcesRequest(claims=[api_pb2.Claim(**claim)])
        answer = await self._service.NodeUnprepareResources(request, timeout=_CALL_LIMIT_S)
        return answer.claims[claim["uid"]].error

    async def _connects(self, socket: Path) -> bool:
        channel = grpc.aio.insecure_channel(f"unix:{socket}", _OPTIONS)
        self._introduction = registration_grpc.RegistrationStub(channel)
        try:
            endpoint = (await self.introduce()).endpoint
        except grpc.aio.AioRpcError:
            await channel.close()
            return False
        await self._connections.enter_async_context(channel)
        service = grpc.aio.insecure_channel(f"unix:{endpoint}", _OPTIONS)
        await self._connections.enter_async_context(service)
        self._service = api_pb2_grpc.DRAPluginStub(service)
        return True


class Kubelet:
    """Carries out tasks, one driver for each registry folder."""

    def __init__(self) -> None:
        self._drivers: dict[str, Driver] = {}

    async def carry_out(self, task: JsonObject) -> JsonObject:
        """The task's answer."""
        tasks: dict[str, Callable[..., Any]] = {
            "call": self._call,
            "introduce": self._introduce,
            "forget": self._forget,
            "recover": self._recover,
        }
        answer: JsonObject = await tasks[task.pop("do")](**task)
        return answer

    async def _driver(self, registry: str) -> Driver:
        if registry not in self._drivers:
            driver = Driver()
            await driver.find(Path(registry))
            self._drivers[registry] = driver
        return self._drivers[registry]

    async def _call(
        self, *, registry: str, verb: str, claims: Sequence[JsonObject], at_once: int
    ) -> JsonObject:
        """Every claim in a call of its own, `at_once` of them under way at any time."""
        driver = await self._driver(registry)
        call = driver.prepare if verb == "prepare" else driver.unprepare
        waiting, each_s, errors = iter(claims), [], []

        async def one_after_the_other() -> None:
            for claim in waiting:
                began_s = time.perf_counter()
                try:
                    error = await call(claim)
                except grpc.aio.AioRpcError as failure:
                    error = f"{failure.code()}: {failure.details()}"
                each_s.append(time.perf_counter() - began_s)
                errors.extend([error] if error else [])

        start_s = time.perf_counter()
        await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
        return {"wall_s": time.perf_counter() - start_s, "each_s": each_s, "errors": errors}

    async def _introduce(self, *, registry: str, times: int) -> JsonObject:
        """GetInfo at regular moments, whether or not the former one was answered: slow moments count like all others."""
        driver = await self._driver(registry)

        async def timed() -> float:
            began_s = time.perf_counter()
            await driver.introduce()
            return time.perf_counter() - began_s

        calls = []
        for _ in range(times):
            calls.append(asyncio.create_task(timed()))
            await asyncio.sleep(_INTRODUCE_EVERY_S)
        return {"each_s": await asyncio.gather(*calls)}

    async def _forget(self, *, registry: str) -> JsonObject:
        """The driver of that folder is another process by now."""
        if registry in self._drivers:
            await self._drivers.pop(registry).forget()
        return {}

    async def _recover(
        self, *, registry: str, replayed: JsonObject, fresh: JsonObject
    ) -> JsonObject:
        """When (CLOCK_MONOTONIC) a driver that is just starting has first answered for either claim."""
        await self._forget(registry=registry)
        driver = await self._driver(registry)
        replayed_at_s, fresh_at_s = await asyncio.gather(
            _first_answer(driver, replayed), _first_answer(driver, fresh)
        )
        return {"replayed_at_s": replayed_at_s, "fresh_at_s": fresh_at_s}


async def _first_answer(driver: Driver, claim: JsonObject) -> float:
    async with asyncio.timeout(_START_LIMIT_S):
        while error := await driver.prepare(claim):
            sys.stderr.write(f"not yet: {error}\n")
            await asyncio.sleep(_LOOK_AGAIN_S)
    return time.monotonic()


async def main() -> None:
    """Serve until stdin ends."""
    kubelet = Kubelet()
    while line := await asyncio.to_thread(sys.stdin.readline):
        answer = await kubelet.carry_out(json.loads(line))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
