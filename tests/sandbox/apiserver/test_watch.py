"""Watches: nothing missed, nothing twice, selectors translated, too old said so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from dra_driver.model.errors import Gone
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.ports import JsonObject, WatchEvent
from dra_driver.sandbox.apiserver import ApiServer, LocalApi, Store

Build = Callable[..., JsonObject]
SLICES = "/apis/resource.k8s.io/v1/resourceslices"


async def take(events: AsyncIterator[Any], count: int) -> list[Any]:
    """So many events; fails the test if they do not come."""
    async with asyncio.timeout(5):
        return [await anext(events) for _ in range(count)]


def told(events: list[WatchEvent]) -> list[tuple[str, str]]:
    return [(event.type, event.object["metadata"]["name"]) for event in events]


async def test_forgotten_history_is_gone(store: Store, api: LocalApi, new_slice: Build) -> None:
    """A watch from a version that was compacted raises Gone; from the newest it works."""
    version = (await api.list(RESOURCE_SLICE)).resource_version
    await api.create(RESOURCE_SLICE, new_slice("a"))
    store.compact()
    with pytest.raises(Gone, match="too old resource version"):
        await anext(api.watch(RESOURCE_SLICE, resource_version=version))
    newest = (await api.list(RESOURCE_SLICE)).resource_version
    watch = api.watch(RESOURCE_SLICE, resource_version=newest)
    await api.create(RESOURCE_SLICE, new_slice("b"))
    assert told(await take(watch, 1)) == [("ADDED", "b")]


async def test_too_old_is_an_error_event_over_http(
    server: ApiServer, client: Any, new_slice: Build
) -> None:
    """The stream opens with 200 and ends after one ERROR event that carries a 410 Status."""
    version = (await client.send("GET", SLICES))["metadata"]["resourceVersion"]
    await client.send("POST", SLICES, new_slice())
    server.store.compact()
    path = f"{SLICES}?watch=true&resourceVersion={version}"
    events = [event async for event in client.events(path)]
    assert [event["type"] for event in events] == ["ERROR"]
    assert (events[0]["object"]["code"], events[0]["object"]["reason"]) == (410, "Expired")


async def test_history_is_bounded(new_slice: Build) -> None:
    """No more than twice the wanted number of changes is remembered."""
    store = Store(history=5)
    api = LocalApi(store)
    version = (await api.list(RESOURCE_SLICE)).resource_version
    for index in range(20):
        await api.create(RESOURCE_SLICE, new_slice(f"s{index}"))
    with pytest.raises(Gone):
        await anext(api.watch(RESOURCE_SLICE, resource_version=version))


async def test_bookmarks_advance_idle_watches(client: Any) -> None:
    """A watch that asks for bookmarks learns newer versions though nothing it watches changed."""
    version = (await client.send("GET", SLICES))["metadata"]["resourceVersion"]
    path = f"{SLICES}?watch=1&allowWatchBookmarks=true&resourceVersion={version}"
    async with aclosing(client.events(path)) as events:
        await client.send("POST", "/api/v1/nodes", {"metadata": {"name": "n"}})
        bookmarks = await take(events, 2)
    assert {one["type"] for one in bookmarks} == {"BOOKMARK"}
    assert int(bookmarks[-1]["object"]["metadata"]["resourceVersion"]) > int(version)


async def test_stopping_ends_watches_at_once(server: ApiServer, client: Any) -> None:
    """A stopping server closes its streams in good order, without waiting for clients."""
    async with aclosing(client.events("/api/v1/namespaces?watch=1")) as events:
        await take(events, 2)
        async with asyncio.timeout(2):
            await server.stop()
            assert await anext(events, None) is None
