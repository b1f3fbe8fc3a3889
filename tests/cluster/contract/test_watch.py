"""Watches: nothing missed, nothing twice, selectors translated, too old said so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.ports import JsonObject, KubeApi, WatchEvent

Build = Callable[..., JsonObject]
SLICES = "/apis/resource.k8s.io/v1/resourceslices"


async def take(events: AsyncIterator[Any], count: int) -> list[Any]:
    """So many events; fails the test if they do not come."""
    async with asyncio.timeout(5):
        return [await anext(events) for _ in range(count)]


async def changes(events: AsyncIterator[WatchEvent], count: int) -> list[WatchEvent]:
    """So many changes; bookmarks come when the server likes."""
    found: list[WatchEvent] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            event = await anext(events)
            if event.type != "BOOKMARK":
                found.append(event)
    return found


def told(events: list[WatchEvent]) -> list[tuple[str, str]]:
    return [(event.type, event.object["metadata"]["name"]) for event in events]


async def test_a_watch_from_a_list_misses_nothing(api: KubeApi, new_slice: Build) -> None:
    """Changes after the list's version arrive in order, those before it do not."""
    await api.create(RESOURCE_SLICE, new_slice("before"))
    listing = await api.list(RESOURCE_SLICE)
    await api.create(RESOURCE_SLICE, new_slice("a"))
    await api.patch(RESOURCE_SLICE, "a", {"metadata": {"labels": {"x": "y"}}})
    await api.delete(RESOURCE_SLICE, "a")
    watch = api.watch(RESOURCE_SLICE, resource_version=listing.resource_version)
    seen = await take(watch, 3)
    assert told(seen) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    versions = [int(event.object["metadata"]["resourceVersion"]) for event in seen]
    assert versions == sorted(set(versions))


async def test_two_watches_see_the_same(client: Any, new_slice: Build) -> None:
    """Two watches from one list see the same events, whoever connects first."""
    version = (await client.send("GET", SLICES))["metadata"]["resourceVersion"]
    path = f"{SLICES}?watch=1&resourceVersion={version}"
    async with aclosing(client.events(path)) as early, aclosing(client.events(path)) as late:
        await client.send("POST", SLICES, new_slice("a"))
        first = await take(early, 1)
        await client.send("POST", SLICES, new_slice("b"))
        await client.send("DELETE", f"{SLICES}/a")
        first += await take(early, 2)
        assert await take(late, 3) == first
    assert [event["type"] for event in first] == ["ADDED", "ADDED", "DELETED"]
    assert first[0]["object"]["kind"] == "ResourceSlice"


@pytest.mark.parametrize("version", ["", "0"])
async def test_a_watch_from_anywhere_starts_with_what_is_there(
    api: KubeApi, client: Any, new_slice: Build, version: str
) -> None:
    """Without a version, present objects come as ADDED, then changes follow."""
    await api.create(RESOURCE_SLICE, new_slice("b"))
    await api.create(RESOURCE_SLICE, new_slice("a"))
    await client.until_cached(SLICES, "a", "b")
    watch = api.watch(RESOURCE_SLICE, resource_version=version)
    assert told(await changes(watch, 2)) == [("ADDED", "a"), ("ADDED", "b")]
    await api.delete(RESOURCE_SLICE, "b")
    assert told(await changes(watch, 1)) == [("DELETED", "b")]


async def test_objects_come_and_go_with_the_selector(api: KubeApi, new_slice: Build) -> None:
    """Starting to match is ADDED, stopping is DELETED with the last matching state, never matching is nothing."""
    version = (await api.list(RESOURCE_SLICE)).resource_version
    selectors = {"labelSelector": "colour=red"}
    watch = api.watch(RESOURCE_SLICE, resource_version=version, selectors=selectors)
    await api.create(RESOURCE_SLICE, new_slice("other"))
    await api.create(RESOURCE_SLICE, new_slice("a"))
    for colour in ("red", "red", "blue"):
        labels = {"colour": colour, "n": colour}
        await api.patch(RESOURCE_SLICE, "a", {"metadata": {"labels": labels}})
    await api.patch(RESOURCE_SLICE, "a", {"metadata": {"labels": {"colour": "red"}}})
    await api.delete(RESOURCE_SLICE, "a")
    seen = await take(watch, 4)
    assert [event.type for event in seen] == ["ADDED", "DELETED", "ADDED", "DELETED"]
    assert seen[1].object["metadata"]["labels"]["colour"] == "red"


async def test_field_selectors_select_events(api: KubeApi, client: Any, new_slice: Build) -> None:
    """A node's plugin sees its own slices alone."""
    selectors = {"fieldSelector": "spec.nodeName=n1,spec.driver=gpu.example.com"}
    await client.until_cached(SLICES)
    watch = api.watch(RESOURCE_SLICE, resource_version="0", selectors=selectors)
    await api.create(RESOURCE_SLICE, new_slice("theirs", nodeName="n2"))
    await api.create(RESOURCE_SLICE, new_slice("ours"))
    assert told(await changes(watch, 1)) == [("ADDED", "ours")]


async def test_streaming_lists_mark_their_end(client: Any, new_slice: Build) -> None:
    """sendInitialEvents: present objects, then a bookmark that says that these were all."""
    await client.send("POST", SLICES, new_slice())
    query = (
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    )
    async with aclosing(client.events(f"{SLICES}?{query}")) as events:
        added, bookmark = await take(events, 2)
    assert (added["type"], bookmark["type"]) == ("ADDED", "BOOKMARK")
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_watch_ends_after_its_time(client: Any) -> None:
    """TimeoutSeconds ends the stream in good order."""
    await client.until_cached(SLICES)
    async with asyncio.timeout(5):
        assert [event async for event in client.events(f"{SLICES}?watch=1&timeoutSeconds=1")] == []
