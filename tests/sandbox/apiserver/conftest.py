"""A running server, a client that speaks plain HTTP to it, and objects to send."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver import ApiServer, Gates, LocalApi, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """HTTP as a script would speak it."""

    url: str
    session: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, body: Any = None, *, media: str = "application/json"
    ) -> tuple[int, JsonObject]:
        """The answer's status and JSON."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": media}
        request = self.session.request(method, self.url + path, data=data, headers=headers)
        async with request as response:
            return response.status, await response.json()

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        code: int | None = None,
        media: str = "application/json",
    ) -> JsonObject:
        """The answer's JSON; `code` is the status that it must have (any success if not given)."""
        status, answer = await self.ask(method, path, body, media=media)
        assert status == code or (code is None and status < 300), answer
        return answer

    async def events(self, path: str) -> AsyncIterator[JsonObject]:
        """The events of a watch, until the server ends it."""
        async with self.session.get(self.url + path) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                yield json.loads(line)


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    server = ApiServer(bookmark_period_s=0.05)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(url=server.url, session=session)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def api(store: Store) -> LocalApi:
    return LocalApi(store)


@pytest.fixture
def gated_api(store: Store) -> Callable[..., LocalApi]:
    return lambda **off: LocalApi(store, gates=Gates(**off))


@pytest.fixture
def new_slice() -> Callable[..., JsonObject]:
    """A valid ResourceSlice; keyword arguments replace fields of its spec, None removes them."""

    def build(name: str = "s", **spec: Any) -> JsonObject:
        fields = {
            "driver": "gpu.example.com",
            "nodeName": "n1",
            "pool": {"name": "n1/x", "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0"}],
            **spec,
        }
        kept = {key: value for key, value in fields.items() if value is not None}
        return {"metadata": {"name": name}, "spec": kept}

    return build


@pytest.fixture
def new_claim() -> Callable[..., JsonObject]:
    """A valid ResourceClaim; keyword arguments replace fields of its spec.devices."""

    def build(name: str = "c", **devices: Any) -> JsonObject:
        request = {"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}}
        spec = {"devices": {"requests": [request], **devices}}
        return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}

    return build


@pytest.fixture
def new_pod() -> Callable[..., JsonObject]:
    """A valid Pod; keyword arguments replace fields of its spec."""

    def build(name: str = "p", **spec: Any) -> JsonObject:
        meta = {"name": name, "namespace": "default"}
        return {"metadata": meta, "spec": {"containers": [{"name": "main", "image": "x"}], **spec}}

    return build


@pytest.fixture
def allocation() -> JsonObject:
    """What a scheduler writes for the claim that `new_claim` builds."""
    result = {"request": "gpu", "driver": "gpu.example.com", "pool": "n1/x", "device": "gpu-0"}
    return {"devices": {"results": [result]}}


@pytest.fixture
def definition() -> JsonObject:
    """A CustomResourceDefinition: cluster-scoped, with a status subresource and a schema."""
    spec = {"type": "object", "properties": {"size": {"type": "integer", "minimum": 1}}}
    status = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": spec, "status": status}}
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Cluster",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [version],
        },
    }
