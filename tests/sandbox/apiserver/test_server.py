"""The server as a process would see it: started, counted, stopped, started again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from dra_driver.model.errors import StartError
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver import ApiServer, LocalApi

Build = Callable[..., JsonObject]
SLICES = "/apis/resource.k8s.io/v1/resourceslices"


async def test_requests_are_counted(server: ApiServer, client: Any, new_slice: Build) -> None:
    """By verb and plural, and only those that came over HTTP."""
    await LocalApi(server.store).create(RESOURCE_SLICE, new_slice("local"))
    await client.send("POST", SLICES, new_slice())
    await client.send("GET", SLICES)
    await client.send("GET", f"{SLICES}/s")
    await client.send("GET", f"{SLICES}/missing", code=404)
    await client.send("DELETE", SLICES)
    assert server.requests == {
        ("create", "resourceslices"): 1,
        ("list", "resourceslices"): 1,
        ("get", "resourceslices"): 2,
        ("deletecollection", "resourceslices"): 1,
    }


async def test_a_restart_keeps_everything(new_slice: Build) -> None:
    """Stopped, it refuses connections; started again on the same port, it has all objects and history."""
    server = ApiServer()
    url = await server.start()
    api = LocalApi(server.store)
    version = (await api.list(RESOURCE_SLICE)).resource_version
    await api.create(RESOURCE_SLICE, new_slice())
    await server.stop()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url + SLICES)
        assert await server.start(port=int(url.rpartition(":")[2])) == url
        async with session.get(f"{url}{SLICES}?watch=1&resourceVersion={version}") as response:
            assert b'"ADDED"' in await response.content.readline()
    await server.stop()
    await server.stop()


async def test_a_taken_port_is_said(server: ApiServer) -> None:
    """StartError names the address."""
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(StartError, match=f"127.0.0.1:{port}"):
        await ApiServer().start(port=port)
    with pytest.raises(StartError, match="not running"):
        _ = ApiServer().url


async def test_health_and_version(client: Any) -> None:
    """Probes answer ok, /version what the server was told to be."""
    for path in ("/healthz", "/readyz", "/livez"):
        async with client.session.get(client.url + path) as response:
            assert await response.text() == "ok"
    version = await client.send("GET", "/version")
    assert (version["major"], version["minor"], version["gitVersion"]) == ("1", "37", "v1.37.1")


async def test_discovery_lists_what_is_served(client: Any) -> None:
    """Groups, resources with verbs and short names, and one OpenAPI document for each version."""
    groups = await client.send("GET", "/apis")
    assert "resource.k8s.io" in {one["name"] for one in groups["groups"]}
    assert (await client.send("GET", "/apis/resource.k8s.io"))["preferredVersion"][
        "version"
    ] == "v1"
    listed = await client.send("GET", "/api/v1")
    pods = next(one for one in listed["resources"] if one["name"] == "pods")
    assert (pods["shortNames"], pods["namespaced"]) == (["po"], True)
    assert {"deletecollection", "watch"} <= set(pods["verbs"])
    index = await client.send("GET", "/openapi/v3")
    for entry in index["paths"].values():
        document = await client.send("GET", entry["serverRelativeURL"])
        assert document["paths"]
    await client.send("GET", "/apis/none.example.com", code=404)


async def test_garbage_is_a_bad_request(client: Any) -> None:
    """A body that is no JSON object is 400, another language 415."""
    url = client.url + SLICES
    for body, media, code in (
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\0", "application/vnd.kubernetes.protobuf", 415),
    ):
        async with client.session.post(url, data=body, headers={"Content-Type": media}) as response:
            assert response.status == code
            assert (await response.json())["kind"] == "Status"


async def test_yaml_is_spoken(client: Any) -> None:
    """`curl --data-binary @file.yaml` works."""
    manifest = b"metadata: {name: n, labels: {a: b}}"
    headers = {"Content-Type": "application/yaml"}
    url = f"{client.url}/api/v1/nodes"
    async with client.session.post(url, data=manifest, headers=headers) as response:
        assert (await response.json())["metadata"]["labels"] == {"a": "b"}
