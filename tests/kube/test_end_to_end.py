"""RestApi, Cache, EventRecorder and the codec against the sandbox's API server, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from dra_driver.kube.codec import slice_from_json, slice_to_json
from dra_driver.kube.endpoint import Endpoint
from dra_driver.kube.events import EventRecorder, EventSource
from dra_driver.kube.rest import RestApi
from dra_driver.kube.watch import Cache, Scope
from dra_driver.model.errors import Conflict, Gone, Invalid, NotFound
from dra_driver.model.kinds import EVENT, NODE, RESOURCE_SLICE
from dra_driver.model.slices import Device, NodePlace, PoolRef, ResourceSlice
from dra_driver.sandbox.apiserver import ApiServer

Eventually = Callable[[Callable[[], object]], Awaitable[None]]

SLICE = ResourceSlice(
    name="n1-nvidia-0",
    driver="gpu.dra-driver.dev",
    pool=PoolRef(name="n1/nvidia", generation=1, slice_count=1),
    place=NodePlace(node_name="n1"),
    devices=(Device(name="gpu-0", attributes={"type": "gpu"}),),
)


@pytest.fixture
async def api() -> AsyncIterator[RestApi]:
    """A client of a fresh API server with a short history."""
    server = ApiServer(history=10)
    url = await server.start()
    async with RestApi(Endpoint(server=url), component="test", watch_timeout_s=1) as client:
        yield client
    await server.stop()


async def test_an_objects_life(api: RestApi) -> None:
    """Create, read, replace, conflict, patch, delete: each answers what the port promises."""
    stored = await api.create(RESOURCE_SLICE, slice_to_json(SLICE))
    assert slice_from_json(stored) == SLICE
    with pytest.raises(Conflict):
        await api.create(RESOURCE_SLICE, slice_to_json(SLICE))
    wider = replace(SLICE, devices=(*SLICE.devices, Device(name="gpu-1")))
    newer = {**slice_to_json(wider), "metadata": stored["metadata"]}
    assert slice_from_json(await api.replace(RESOURCE_SLICE, newer)) == wider
    with pytest.raises(Conflict):
        await api.replace(RESOURCE_SLICE, newer)
    patch = {"metadata": {"labels": {"a": "b"}}}
    assert (await api.patch(RESOURCE_SLICE, SLICE.name, patch))["metadata"]["labels"] == {"a": "b"}
    assert slice_from_json(await api.get(RESOURCE_SLICE, SLICE.name)) == wider
    with pytest.raises(Conflict):
        await api.delete(RESOURCE_SLICE, SLICE.name, preconditions={"uid": "another"})
    await api.delete(RESOURCE_SLICE, SLICE.name)
    with pytest.raises(NotFound):
        await api.get(RESOURCE_SLICE, SLICE.name)


async def test_what_the_server_refuses(api: RestApi) -> None:
    """A dry run stores nothing; an invalid object is Invalid; a version too old is Gone."""
    await api.create(RESOURCE_SLICE, slice_to_json(SLICE), dry_run=True)
    assert (await api.list(RESOURCE_SLICE)).items == ()
    with pytest.raises(Invalid, match="create ResourceSlice"):
        await api.create(RESOURCE_SLICE, slice_to_json(replace(SLICE, name="Not A Name")))
    assert (await api.server_version())[0] == 1
    for n in range(40):
        await api.create(NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"n{n}"}})
    with pytest.raises(Gone):
        await anext(aiter(api.watch(NODE, resource_version="1")))


async def test_a_cache_keeps_up(api: RestApi, eventually: Eventually) -> None:
    """Through many changes and the server's watch time-outs the copy ends up the same as the server's list."""
    cache = Cache(api, Scope(kind=RESOURCE_SLICE, selectors={"fieldSelector": "spec.nodeName=n1"}))
    task = asyncio.create_task(cache.run())
    await cache.synced.wait()
    await api.create(RESOURCE_SLICE, slice_to_json(SLICE))
    elsewhere = replace(SLICE, name="other", place=NodePlace(node_name="n2"))
    await api.create(RESOURCE_SLICE, slice_to_json(elsewhere))
    await eventually(lambda: cache.objects)
    for n in range(30):
        await api.patch(RESOURCE_SLICE, SLICE.name, {"metadata": {"labels": {"n": str(n)}}})
    await asyncio.sleep(1.2)  # longer than a watch lasts
    await api.patch(RESOURCE_SLICE, SLICE.name, {"metadata": {"labels": {"n": "last"}}})
    current = await api.get(RESOURCE_SLICE, SLICE.name)
    await eventually(lambda: dict(cache.objects) == {("", SLICE.name): current})
    await api.delete(RESOURCE_SLICE, SLICE.name)
    await eventually(lambda: not cache.objects)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_events_are_stored(api: RestApi) -> None:
    """Two equal Events become one that was seen twice."""
    recorder = EventRecorder(api, EventSource(component="test", host="n1"))
    task = asyncio.create_task(recorder.run())
    node = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u"}
    for _ in range(2):
        recorder.event(node, level="Normal", reason="Published", message="2 devices")
    async with asyncio.timeout(5):
        while True:
            stored = (await api.list(EVENT, namespace="default")).items
            if [event["count"] for event in stored] == [2]:
                break
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert stored[0]["involvedObject"] == node
