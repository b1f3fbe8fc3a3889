"""One set of scenarios, two kinds of target: the sandbox's API server, and real ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
import pytest

from dra_driver.kube.endpoint import Endpoint
from dra_driver.kube.rest import RestApi
from dra_driver.model import kinds
from dra_driver.model.errors import NotFound
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver import ApiServer
from tests.cluster.conftest import REAL
from tests.cluster.controlplane import ControlPlane, running_control_plane
from tests.cluster.waiting import SERVICE_ACCOUNT, eventually

_CLEANED = (
    kinds.POD,
    kinds.RESOURCE_CLAIM,
    kinds.RESOURCE_CLAIM_TEMPLATE,
    kinds.RESOURCE_SLICE,
    kinds.DEVICE_CLASS,
    kinds.NODE,
    kinds.CUSTOM_RESOURCE_DEFINITION,
)


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

    async def until_cached(self, path: str, *names: str) -> None:
        """Returns once these objects are what the server has in its cache, which is a moment behind what it stores."""

        async def is_so() -> bool:
            listed = await self.send("GET", f"{path}?resourceVersion=0")
            return {item["metadata"]["name"] for item in listed["items"]} == set(names)

        await eventually(is_so)

    async def events(self, path: str) -> AsyncIterator[JsonObject]:
        """The events of a watch, until the server ends it."""
        async with self.session.get(self.url + path) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                yield json.loads(line)


@pytest.fixture(scope="session", params=["sandbox", *REAL])
def plane(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane | None]:
    """A control plane for these tests alone, or None: the sandbox."""
    if request.param == "sandbox":
        yield None
        return
    root = tmp_path_factory.mktemp(f"contract-{request.param}")
    with running_control_plane(request.param, root) as plane:
        asyncio.run(_wait_for_service_account(plane.endpoint))
        yield plane


@pytest.fixture
def all_features(plane: ControlPlane | None) -> None:
    """Not where Kubernetes drops the fields in question: the sandbox has the rules of the newest version."""
    if plane is not None and plane.version < (1, 36):
        pytest.skip("partitions, shares and taints are off by default before Kubernetes 1.36")


@pytest.fixture
async def endpoint(plane: ControlPlane | None) -> AsyncIterator[Endpoint]:
    """The target's address, with nothing of other tests behind it."""
    if plane is not None:
        yield plane.endpoint
        await _clean(plane.endpoint)
        return
    server = ApiServer(bookmark_period_s=0.05)
    await server.start()
    yield Endpoint(server=server.url)
    await server.stop()


@pytest.fixture
async def client(endpoint: Endpoint) -> AsyncIterator[Client]:
    """Plain HTTP."""
    headers = {}
    if endpoint.token is not None:
        headers["Authorization"] = f"Bearer {await endpoint.token.current()}"
    connector = aiohttp.TCPConnector(ssl=endpoint.ssl_context() or True)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        yield Client(url=endpoint.server, session=session)


@pytest.fixture
async def api(endpoint: Endpoint) -> AsyncIterator[RestApi]:
    """Our own client."""
    async with RestApi(endpoint, component="tests") as api:
        yield api


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


async def _wait_for_service_account(endpoint: Endpoint) -> None:
    """Pods are refused until their namespace has a default service account."""
    async with RestApi(endpoint, component="tests") as api:
        await eventually(partial(_has_service_account, api))


async def _has_service_account(api: RestApi) -> bool:
    return bool((await api.list(SERVICE_ACCOUNT, namespace="default")).items)


async def _clean(endpoint: Endpoint) -> None:
    async with RestApi(endpoint, component="tests") as api:
        for kind in _CLEANED:
            for item in (await api.list(kind)).items:
                metadata = item["metadata"]
                place = {"namespace": metadata.get("namespace")}
                with suppress(NotFound):
                    if metadata.get("finalizers"):
                        bare = {"metadata": {"finalizers": None}}
                        await api.patch(kind, metadata["name"], bare, **place)
                    await api.delete(kind, metadata["name"], grace_period_s=0, **place)
