"""EventRecorder, over real HTTP."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import kubernetes_validate
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from dra_driver.kube.endpoint import Endpoint
from dra_driver.kube.events import EventRecorder, EventSource
from dra_driver.kube.rest import RestApi
from dra_driver.ports import Recorder

Serve = Callable[..., Awaitable[str]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]

CLAIM = {
    "apiVersion": "resource.k8s.io/v1",
    "kind": "ResourceClaim",
    "namespace": "team",
    "name": "a",
    "uid": "u1",
}
NODE = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u2"}


class ManualClock:
    """Time that a test moves."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


class Bench:
    """A recorder, and the API server that it writes to."""

    def __init__(self, eventually: Eventually) -> None:
        self.eventually = eventually
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.refusals: list[int] = []
        self.clock = ManualClock()
        self.fences = itertools.count()
        self.recorder: EventRecorder

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.calls.append((request.method, request.path, body))
        if self.refusals:
            return web.Response(status=self.refusals.pop(0))
        return web.json_response({"metadata": {"name": f"event-{len(self.calls)}"}})

    async def written(self, count: int) -> None:
        """Events are written in their order: once a last one is, so are all before it."""
        fence = {"kind": "Fence", "name": f"fence-{next(self.fences)}", "namespace": "fence"}
        self.say(fence, "all before is written")
        place = "/api/v1/namespaces/fence/events"
        await self.eventually(lambda: any(path == place for _, path, _ in self.calls))
        self.calls = [call for call in self.calls if call[1] != place]
        assert len(self.calls) == count

    def say(self, regarding: dict[str, str], message: str) -> None:
        self.recorder.event(regarding, level="Warning", reason="DeviceHeld", message=message)


@pytest.fixture
def bench(serve: Serve, eventually: Eventually) -> Callable[[], Any]:
    """A recorder at work, as an async context manager."""

    @asynccontextmanager
    async def start() -> AsyncIterator[Bench]:
        b = Bench(eventually)
        async with RestApi(Endpoint(server=await serve(b.answer)), component="test") as api:
            b.recorder = EventRecorder(
                api,
                EventSource(component="dra-kubelet-plugin", host="n1"),
                clock=b.clock,
                now=lambda: datetime(2026, 11, 21, 1, 2, 3, tzinfo=UTC),
            )
            task = asyncio.create_task(b.recorder.run())
            yield b
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return start


async def test_writes_a_valid_event(bench: Callable[[], Any]) -> None:
    """The Event is beside its object, says who, what and why, and is valid in every version we support."""
    async with bench() as b:
        recorder: Recorder = b.recorder
        recorder.event(CLAIM, level="Warning", reason="DeviceHeld", message="gpu-0 is held")
        await b.written(1)
    method, path, body = b.calls[0]
    assert (method, path) == ("POST", "/api/v1/namespaces/team/events")
    assert body["involvedObject"] == CLAIM
    assert (body["type"], body["reason"], body["message"]) == (
        "Warning",
        "DeviceHeld",
        "gpu-0 is held",
    )
    assert body["source"] == {"component": "dra-kubelet-plugin", "host": "n1"}
    assert body["firstTimestamp"] == "2026-11-21T01:02:03Z"
    for version in ("1.34", "1.35", "1.36", "1.37"):
        kubernetes_validate.validate(body, version, strict=True)


async def test_cluster_scoped_objects(bench: Callable[[], Any]) -> None:
    """Their Events live in the namespace default, and involvedObject has no namespace."""
    async with bench() as b:
        b.say(NODE, "m")
        await b.written(1)
    assert b.calls[0][1] == "/api/v1/namespaces/default/events"
    assert b.calls[0][2]["involvedObject"] == NODE


async def test_counts_repetitions(bench: Callable[[], Any]) -> None:
    """The same reason on the same object within ten minutes is one Event: counted, with the newest message."""
    async with bench() as b:
        b.say(CLAIM, "held by b")
        await b.written(1)
        b.say(CLAIM, "held by c")
        await b.written(2)
        b.say(NODE, "held by c")
        await b.written(3)
        b.clock.now = 599.0
        b.say(CLAIM, "held by d")
        await b.written(4)
        b.clock.now = 1200.0
        b.say(CLAIM, "held by d")
        await b.written(5)
    methods = [method for method, _, _ in b.calls]
    assert methods == ["POST", "PATCH", "POST", "PATCH", "POST"]
    assert b.calls[1][1] == "/api/v1/namespaces/team/events/event-1"
    patches = [body for method, _, body in b.calls if method == "PATCH"]
    assert [(patch["count"], patch["message"]) for patch in patches] == [
        (2, "held by c"),
        (3, "held by d"),
    ]


async def test_what_is_said_while_writing_is_written_once(bench: Callable[[], Any]) -> None:
    """A slow API server gets one write with the count and the newest message, not one for each time."""
    async with bench() as b:
        for number in range(500):
            b.say(CLAIM, f"try {number}")
        await b.written(1)
    assert (b.calls[0][2]["count"], b.calls[0][2]["message"]) == (500, "try 499")


async def test_another_reason_is_another_event(bench: Callable[[], Any]) -> None:
    """And so is another level."""
    async with bench() as b:
        b.say(CLAIM, "m")
        b.recorder.event(CLAIM, level="Warning", reason="HardwareError", message="m")
        b.recorder.event(CLAIM, level="Normal", reason="DeviceHeld", message="m")
        await b.written(3)
    assert {method for method, _, _ in b.calls} == {"POST"}


async def test_an_event_that_expired_is_written_anew(bench: Callable[[], Any]) -> None:
    """404 on counting is no loss."""
    async with bench() as b:
        b.say(CLAIM, "m")
        await b.written(1)
        b.refusals = [404]
        b.say(CLAIM, "m")
        await b.written(3)
    assert [method for method, _, _ in b.calls] == ["POST", "PATCH", "POST"]


async def test_failures_are_logged_and_forgotten(bench: Callable[[], Any]) -> None:
    """No rights, no server: the recorder says so once per Event, and goes on."""
    with capture_logs() as logs:
        async with bench() as b:
            b.refusals = [403, 500]
            for message in ("one", "two", "three"):
                b.say(CLAIM | {"name": message}, message)
            await b.written(3)
    assert [log["message"] for log in logs if log["event"] == "event_dropped"] == ["one", "two"]
    assert "403" in logs[0]["why"]


async def test_too_many_events_are_dropped(serve: Serve, eventually: Eventually) -> None:
    """Saying something never waits and never fails, whatever the API server does."""
    b = Bench(eventually)
    async with RestApi(Endpoint(server=await serve(b.answer)), component="test") as api:
        b.recorder = EventRecorder(api, EventSource(component="c", host="h"), clock=b.clock)
        with capture_logs() as logs:
            for n in range(1003):
                b.say(CLAIM | {"name": str(n)}, str(n))
    assert [log["message"] for log in logs] == ["1000", "1001", "1002"]


async def test_long_messages_are_cut(bench: Callable[[], Any]) -> None:
    """The API takes 1,024 characters."""
    async with bench() as b:
        b.say(CLAIM, "x" * 5000)
        await b.written(1)
    assert len(b.calls[0][2]["message"]) == 1024
