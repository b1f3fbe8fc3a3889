"""A laboratory for the kubelet: an API, a node's folders, claims and pods at will, and short pauses."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dra_driver.model import kinds
from dra_driver.model.errors import NotFound
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.local import LocalApi
from dra_driver.sandbox.kubelet.deadlines import Deadlines
from dra_driver.sandbox.kubelet.kubelet import Kubelet
from dra_driver.wire.registration_v1 import api_pb2 as registration_pb2
from tests.sandbox.kubelet.driver import Driver

NAMESPACE = "default"
NODE = "node-1"
SHORT = Deadlines(
    dial_s=1.0,
    get_info_s=30.0,
    notify_s=30.0,
    prepare_s=30.0,
    unprepare_s=30.0,
    wipe_after_s=30.0,
    health_retry_s=0.05,
    poll_s=0.02,
    retry_s=0.05,
    retry_max_s=0.1,
    reconcile_s=0.1,
    termination_s=0.0,
)
"""What a driver has to meet is long: a test whose driver is to miss it makes it short, or lets time pass."""


@dataclass
class Lab:
    """One node and its API."""

    root: Path
    api: LocalApi

    @property
    def registry(self) -> Path:
        return self.root / "plugins_registry"

    @property
    def cdi(self) -> Path:
        return self.root / "cdi"

    @asynccontextmanager
    async def kubelet(self, deadlines: Deadlines = SHORT) -> AsyncIterator[Kubelet]:
        """A kubelet runs; leaving the block is what `systemctl stop kubelet` is."""
        kubelet = Kubelet(self.api, NODE, self.root, [self.cdi], deadlines=deadlines)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(kubelet.run())
            yield kubelet
            task.cancel()

    def driver(
        self,
        name: str = "a.example.com",
        *,
        instance: str = "1",
        services: Sequence[str] = ("v1.DRAPlugin",),
    ) -> Driver:
        """A driver that does not run yet; `instance` tells two of one name apart; `services` is what it says that it serves."""
        info = registration_pb2.PluginInfo(
            type="DRAPlugin",
            name=name,
            endpoint=str(self.root / f"{name}-{instance}.sock"),
            supported_versions=services,
        )
        return Driver(name=name, cdi=self.cdi, info=info)

    async def make_claim(self, name: str, *drivers: str, owner: JsonObject | None = None) -> str:
        """A claim with one device of each driver, generated for `owner` if there is one; its UID."""
        metadata: JsonObject = {"name": name, "namespace": NAMESPACE}
        if owner is not None:
            metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", **_identity(owner)}]
        request = {"name": "gpu", "exactly": {"deviceClassName": "gpu"}}
        body = {"metadata": metadata, "spec": {"devices": {"requests": [request]}}}
        made = await self.api.create(kinds.RESOURCE_CLAIM, body, namespace=NAMESPACE)
        results = [
            {"request": "gpu", "driver": driver, "pool": NODE, "device": "device-gpu"}
            for driver in drivers or ["a.example.com"]
        ]
        await self.patch_claim(name, {"allocation": {"devices": {"results": results}}})
        uid: str = made["metadata"]["uid"]
        return uid

    async def reserve(self, name: str, *pods: JsonObject) -> None:
        """The claim may be used by these pods, and no others."""
        consumers = [{"resource": "pods", **_identity(pod)} for pod in pods]
        await self.patch_claim(name, {"reservedFor": consumers})

    async def patch_claim(self, name: str, status: JsonObject) -> None:
        await self.api.patch(
            kinds.RESOURCE_CLAIM,
            name,
            {"status": status},
            namespace=NAMESPACE,
            subresource="status",
        )

    async def delete_claim(self, name: str) -> None:
        await self.patch_claim(name, {"reservedFor": None, "allocation": None})
        await self.api.delete(kinds.RESOURCE_CLAIM, name, namespace=NAMESPACE)

    async def start_pod(self, name: str, *claims: str, requests: Sequence[str] = ("",)) -> None:
        """A pod with these claims, reserved for it alone; one container for each entry of `requests`, limited to it."""
        containers = [
            {
                "name": f"c{number}",
                "image": "image",
                "resources": {"claims": [_claim_use(claim, request) for claim in claims]},
            }
            for number, request in enumerate(requests)
        ]
        entries = [{"name": claim, "resourceClaimName": claim} for claim in claims]
        pod = await self.create_pod(name, {"containers": containers, "resourceClaims": entries})
        for claim in claims:
            await self.reserve(claim, pod)

    async def create_pod(self, name: str, spec: JsonObject) -> JsonObject:
        """A pod that the scheduler has bound to the node."""
        body = {"metadata": {"name": name}, "spec": {"nodeName": NODE, **spec}}
        return await self.api.create(kinds.POD, body, namespace=NAMESPACE)

    async def pod(self, name: str) -> JsonObject | None:
        """The pod as the API has it."""
        try:
            return await self.api.get(kinds.POD, name, namespace=NAMESPACE)
        except NotFound:
            return None

    async def delete_pod(self, name: str, *, force: bool = False) -> None:
        await self.api.delete(
            kinds.POD, name, namespace=NAMESPACE, grace_period_s=0 if force else None
        )

    async def until_running(self, name: str) -> JsonObject:
        async def runs() -> bool:
            return bool((await self.pod(name) or {}).get("status", {}).get("phase") == "Running")

        await eventually(runs)
        pod = await self.pod(name)
        assert pod is not None
        return pod

    async def until_gone(self, name: str) -> None:
        async def gone() -> bool:
            return await self.pod(name) is None

        await eventually(gone)

    async def until_failing(self, name: str, text: str) -> None:
        """The pod waits, and its message has this text."""

        async def fails() -> bool:
            pod = await self.pod(name) or {}
            return text in pod.get("status", {}).get("message", "")

        await eventually(fails)

    async def until_registered(self, *drivers: Driver) -> None:
        async def registered() -> bool:
            return all(driver.registrations[-1:] == [(True, "")] for driver in drivers)

        await eventually(registered)

    async def until_health(self, name: str, *expected: JsonObject) -> None:
        """The pod's only container says this of the devices of its claims."""

        async def said() -> bool:
            [status] = (await self.until_running(name))["status"]["containerStatuses"]
            claims = status.get("allocatedResourcesStatus", [])
            return [device for claim in claims for device in claim["resources"]] == list(expected)

        await eventually(said)

    async def set_claim_status(self, pod: str, entry: JsonObject) -> None:
        """What the claim controller made of the pod's only template."""
        status = {"status": {"resourceClaimStatuses": [entry]}}
        await self.api.patch(kinds.POD, pod, status, namespace=NAMESPACE, subresource="status")

    def view(self, name: str) -> list[JsonObject]:
        """What the pod's containers would find."""
        content = json.loads((self.root / "pods" / f"{NAMESPACE}_{name}.json").read_text())
        containers: list[JsonObject] = content["containers"]
        return containers

    async def publish_slice(self, driver: str, node: str = NODE) -> None:
        pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
        body = {
            "metadata": {"generateName": f"{driver}-"},
            "spec": {"driver": driver, "nodeName": node, "pool": pool, "devices": []},
        }
        await self.api.create(kinds.RESOURCE_SLICE, body)

    async def slices(self) -> list[tuple[str, str]]:
        """Driver and node of every slice."""
        listing = await self.api.list(kinds.RESOURCE_SLICE)
        return sorted((item["spec"]["driver"], item["spec"]["nodeName"]) for item in listing.items)


async def eventually(check: Callable[[], Awaitable[bool]], within_s: float = 5.0) -> None:
    """Wait until it holds; `check` may let time pass."""
    deadline = time.monotonic() + within_s
    while not await check():
        assert time.monotonic() < deadline, "it never came to hold"
        await asyncio.sleep(0.01)


def _identity(item: JsonObject) -> JsonObject:
    return {"name": item["metadata"]["name"], "uid": item["metadata"]["uid"]}


def _claim_use(claim: str, request: str) -> JsonObject:
    return {"name": claim, "request": request} if request else {"name": claim}
