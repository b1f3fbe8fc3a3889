"""Cache: list, watch, and everything that goes wrong with them, over real HTTP with a clock of our own."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from dra_driver.kube.endpoint import Endpoint
from dra_driver.kube.rest import RestApi
from dra_driver.kube.watch import Cache, Scope
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.ports import WatchEvent

Serve = Callable[..., Awaitable[str]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]
Item = dict[str, Any]

END = "end"
CUT = "cut"


class ManualClock:
    """Sleeping takes no time, but is remembered and moves the clock. Looking at it moves it by `step_s`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step_s = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        self.now += self.step_s
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def item(name: str, version: int) -> Item:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def change(kind: str, name: str, version: int) -> Item:
    return {"type": kind, "object": item(name, version)}


def status(code: int) -> Item:
    return {"type": "ERROR", "object": {"kind": "Status", "code": code}}


class Script:
    """An API server that plays: `lists` one after the other (a number is a refusal), then `watches` likewise.

    A watch is a list of events, and ends with END (the server ends it), CUT (the connection breaks) or nothing (it
    stays open). Past the script, lists and watches hang.
    """

    def __init__(self, lists: list[Any], watches: list[Any]) -> None:
        self.lists = lists
        self.watches = watches
        self.asked: list[str] = []
        self.stop = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        watching = "watch" in request.query
        version = request.query.get("resourceVersion", "")
        self.asked.append(f"watch {version}" if watching else "list")
        plays = self.watches if watching else self.lists
        if not plays:
            await self.stop.wait()
            return web.Response(status=503)
        play = plays.pop(0)
        if isinstance(play, int):
            return web.Response(status=play, headers={"Retry-After": "9"} if play == 429 else {})
        return await self.stream(request, play) if watching else web.json_response(play)

    async def stream(self, request: web.Request, play: list[Any]) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event in play:
            if event == CUT:
                assert request.transport is not None
                request.transport.close()
            if event in (END, CUT):
                return response
            await response.write(json.dumps(event).encode() + b"\n")
        await self.stop.wait()
        return response


def listing(version: int, *items: Item) -> Item:
    return {"metadata": {"resourceVersion": str(version)}, "items": list(items)}


class Run:
    """A cache at work on a script."""

    def __init__(self, script: Script, api: RestApi, eventually: Eventually) -> None:
        self.until = eventually
        self.clock = ManualClock()
        self.script = script
        self.changes: list[str] = []
        self.cache = Cache(
            api,
            Scope(kind=RESOURCE_SLICE),
            on_change=self.note,
            clock=self.clock,
            rng=random.Random(7),
        )

    def note(self, event: WatchEvent) -> None:
        metadata = event.object["metadata"]
        self.changes.append(
            f"{event.type} {metadata.get('name', '*')} {metadata['resourceVersion']}"
        )

    @property
    def known(self) -> dict[str, str]:
        return {
            name: item["metadata"]["resourceVersion"]
            for (_, name), item in self.cache.objects.items()
        }


@pytest.fixture
def play(serve: Serve, eventually: Eventually) -> Callable[..., Any]:
    """A cache at work on a script of `lists` and `watches`, as an async context manager."""

    @asynccontextmanager
    async def start(*, lists: list[Any], watches: list[Any]) -> AsyncIterator[Run]:
        script = Script(lists, watches)
        async with RestApi(Endpoint(server=await serve(script)), component="test") as api:
            run = Run(script, api, eventually)
            task = asyncio.create_task(run.cache.run())
            try:
                yield run
            finally:
                script.stop.set()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled(), "only cancelling ends a cache"

    return start


Play = Callable[..., Any]


async def test_lists_then_watches(play: Play) -> None:
    """The copy follows additions, changes and deletions, and tells of each, in order."""
    events = [change("ADDED", "c", 11), change("MODIFIED", "a", 12), change("DELETED", "b", 13)]
    async with play(lists=[listing(10, item("a", 1), item("b", 2))], watches=[events]) as run:
        await run.until(lambda: len(run.changes) == 6)
        assert run.cache.synced.is_set()
        assert run.known == {"a": "12", "c": "11"}
        assert run.changes == [
            "ADDED a 1",
            "ADDED b 2",
            "BOOKMARK * 10",
            "ADDED c 11",
            "MODIFIED a 12",
            "DELETED b 13",
        ]
        assert run.script.asked == ["list", "watch 10"]


async def test_the_servers_time_outs_cost_no_list(play: Play) -> None:
    """A watch that ends is resumed where it was, bookmarks included."""
    watches = [
        [change("ADDED", "a", 11), END],
        [change("BOOKMARK", "", 50), END],
        [END],
        [change("ADDED", "b", 51)],
    ]
    async with play(lists=[listing(10)], watches=watches) as run:
        await run.until(lambda: "b" in run.known)
        assert run.script.asked == ["list", "watch 10", "watch 11", "watch 50", "watch 50"]
        assert run.changes == ["BOOKMARK * 10", "ADDED a 11", "ADDED b 51"]


@pytest.mark.parametrize("gone", [410, [change("ADDED", "x", 11), status(410)]])
async def test_gone_means_listing_again(play: Play, gone: Any) -> None:
    """410, as an answer or inside the stream: a new list, whose differences are reported as changes."""
    lists = [
        listing(10, item("a", 1), item("b", 2), item("c", 3)),
        listing(99, item("a", 1), item("b", 22), item("d", 4)),
    ]
    async with play(lists=lists, watches=[gone, []]) as run:
        await run.until(lambda: "watch 99" in run.script.asked)
        assert run.known == {"a": "1", "b": "22", "d": "4"}
        assert {"DELETED c 3", "MODIFIED b 22", "ADDED d 4"} <= set(run.changes)
        assert run.changes.count("ADDED a 1") == 1


async def test_a_broken_connection_costs_no_list(play: Play) -> None:
    """After a cut, or while the server is unavailable, the watch resumes where it was."""
    watches: list[Any] = [[change("ADDED", "a", 11), CUT], 503, [change("ADDED", "b", 12)]]
    async with play(lists=[listing(10)], watches=watches) as run:
        await run.until(lambda: "b" in run.known)
        assert run.script.asked == ["list", "watch 10", "watch 11", "watch 11"]


async def test_other_refusals_are_survived(play: Play) -> None:
    """No rights yet, no such kind yet: it keeps trying, and starts over with a list."""
    async with play(lists=[403, 404, listing(1, item("a", 1))], watches=[403]) as run:
        await run.until(run.cache.synced.is_set)
        await run.until(lambda: run.script.asked[-2:] == ["watch 1", "list"])
        assert run.known == {"a": "1"}


async def test_pauses_grow_and_are_spread(play: Play) -> None:
    """Failures in a row wait longer and longer, up to 30 s, never in step; success starts afresh."""
    async with play(
        lists=[503] * 12 + [listing(1)], watches=[[change("ADDED", "a", 2), END]]
    ) as run:
        await run.until(lambda: len(run.clock.pauses) >= 13)
        failures, after_success = run.clock.pauses[:12], run.clock.pauses[12]
        limits = [min(0.25 * 2**n, 30.0) for n in range(12)]
        assert all(
            limit / 2 <= pause <= limit for pause, limit in zip(failures, limits, strict=True)
        )
        assert len(set(failures)) == 12
        assert after_success <= 0.25


async def test_waits_as_long_as_it_is_asked_to(play: Play) -> None:
    """Retry-After is a lower bound."""
    async with play(lists=[429, listing(1)], watches=[]) as run:
        await run.until(run.cache.synced.is_set)
        assert run.clock.pauses == [9.0]


async def test_a_server_that_ends_every_watch_at_once(play: Play) -> None:
    """It gets longer and longer pauses instead of a stampede."""
    async with play(lists=[listing(1)], watches=[[END]] * 8) as run:
        await run.until(lambda: len(run.clock.pauses) >= 8)
        assert run.clock.pauses[7] > 8


async def test_a_quiet_watch_that_lasted_is_no_failure(play: Play) -> None:
    """Watches without events, ended by the server's time-out, never make the next one wait long."""
    async with play(lists=[listing(1)], watches=[[END]] * 3) as run:
        run.clock.step_s = 31.0
        await run.until(lambda: len(run.clock.pauses) >= 3)
        assert max(run.clock.pauses) <= 0.25


async def test_lists_again_after_some_minutes(play: Play) -> None:
    """Five to ten minutes after a list the next one is due, even in the middle of a busy watch."""
    lists = [listing(10, item("a", 1)), listing(20, item("a", 1), item("missed", 2))]
    async with play(lists=lists, watches=[[change("ADDED", "b", 11), END], []]) as run:

        def later(_: WatchEvent) -> None:
            run.clock.now += 601.0 if "b" in run.known else 0.0

        run.cache._on_change = later
        await run.until(lambda: "missed" in run.known)
        assert "b" not in run.known
        assert run.script.asked[:3] == ["list", "watch 10", "list"]


async def test_namespace_and_selectors_reach_the_server(
    serve: Serve, eventually: Eventually
) -> None:
    """A scope narrows both the list and the watch."""
    seen: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.path, request.query["fieldSelector"]))
        return web.json_response(listing(1)) if len(seen) == 1 else web.Response(status=503)

    selectors = {"fieldSelector": "spec.nodeName=n1"}
    scope = Scope(kind=RESOURCE_SLICE, namespace="ns", selectors=selectors)
    async with RestApi(Endpoint(server=await serve(answer)), component="test") as api:
        task = asyncio.create_task(Cache(api, scope).run())
        await eventually(lambda: len(seen) >= 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    path = "/apis/resource.k8s.io/v1/namespaces/ns/resourceslices"
    assert seen[:2] == [(path, "spec.nodeName=n1")] * 2
