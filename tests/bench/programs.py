"""The benchmark's own processes as the benchmark sees them: its API server and its kubelet."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp

from dra_driver.ports import JsonObject

_ANSWER_LIMIT_BYTES = 1 << 22


@asynccontextmanager
async def running(
    module: str, *, in_background: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of that module, which ends with its stdin; `in_background` it gets only what CPU nobody else wants."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_ANSWER_LIMIT_BYTES,
    )
    try:
        if in_background:
            os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


class Api:
    """An API server; see `tests.bench.apiserver`."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def report(self) -> JsonObject:
        """What happened so far."""
        async with self._session.get(f"{self.url}/bench") as answer:
            report: JsonObject = await answer.json()
            return report

    async def requests(self) -> Counter[str]:
        """Requests so far, by verb and plural."""
        return Counter((await self.report())["requests"])

    async def add_claims(self, claims: Sequence[JsonObject]) -> None:
        """Have it know these claims."""
        async with self._session.put(f"{self.url}/bench/claims", json=list(claims)) as answer:
            answer.raise_for_status()

    async def set_outage(self, *, is_down: bool) -> None:
        """Drop every request of drivers, or serve them again."""
        async with self._session.put(f"{self.url}/bench/outage", json=is_down) as answer:
            answer.raise_for_status()

    async def wipe_slices(self) -> None:
        """As a kubelet that starts."""
        url = f"{self.url}/apis/resource.k8s.io/v1/resourceslices"
        async with self._session.delete(url) as answer:
            answer.raise_for_status()


@asynccontextmanager
async def running_api(*, in_background: bool = False) -> AsyncIterator[Api]:
    """An API server in a process of its own."""
    async with (
        running("tests.bench.apiserver", in_background=in_background) as process,
        aiohttp.ClientSession() as session,
    ):
        assert process.stdout is not None
        yield Api((await process.stdout.readline()).decode().strip(), session)


class Kubelet:
    """A kubelet; see `tests.bench.load`. It carries out one task at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    async def ask(self, **task: object) -> JsonObject:
        """The task's answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            await self._process.stdin.drain()
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the kubelet process has ended; its last words are above")
        answer: JsonObject = json.loads(line)
        return answer


@asynccontextmanager
async def running_kubelet(*, in_background: bool = False) -> AsyncIterator[Kubelet]:
    """A kubelet in a process of its own."""
    async with running("tests.bench.load", in_background=in_background) as process:
        yield Kubelet(process)
