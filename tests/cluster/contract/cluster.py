"""A cluster with a scheduler and controllers, and what scenarios ask of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from dra_driver.kube.events import EventRecorder, EventSource
from dra_driver.model.errors import NotFound
from dra_driver.model.kinds import POD, RESOURCE_CLAIM
from dra_driver.ports import JsonObject, KubeApi
from dra_driver.sandbox.apiserver import ApiServer, LocalApi
from dra_driver.sandbox.claims import ClaimController
from dra_driver.sandbox.eviction import TaintEviction
from dra_driver.sandbox.placement import placing
from dra_driver.sandbox.scheduler import Scheduler
from tests.cluster.waiting import eventually


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Pods and claims live in the namespace default.

    `driver` is nobody else's name, as a scheduler may be late to hear that what another test published is gone.
    """

    api: KubeApi
    driver: str = field(default_factory=lambda: f"gpu-{token_hex(4)}.example.com")

    async def new_pod(self, name: str, **source: str) -> None:
        """A pod with one claim, from that source, in its only container."""
        container = {"name": "main", "image": "x", "resources": {"claims": [{"name": "gpu"}]}}
        spec: dict[str, Any] = {
            "containers": [container],
            "resourceClaims": [{"name": "gpu", **source}],
        }
        body = {"metadata": {"name": name}, "spec": spec}
        await self.api.create(POD, body, namespace="default")

    async def new_claimant(self, name: str, devices: JsonObject) -> str:
        """A claim and a pod of that name; the claim's name."""
        claim = {"metadata": {"name": name}, "spec": {"devices": devices}}
        await self.api.create(RESOURCE_CLAIM, claim, namespace="default")
        await self.new_pod(name, resourceClaimName=name)
        return name

    async def scheduled(self, name: str) -> JsonObject:
        """The pod, once it has a node."""

        async def has_node() -> bool:
            return "nodeName" in (await self.api.get(POD, name, namespace="default"))["spec"]

        await eventually(has_node)
        return await self.api.get(POD, name, namespace="default")

    async def waits(self, name: str) -> None:
        """Returns once the scheduler has said that the pod cannot be placed."""

        async def is_refused() -> bool:
            status = (await self.api.get(POD, name, namespace="default"))["status"]
            return any(one.get("reason") == "Unschedulable" for one in status.get("conditions", ()))

        await eventually(is_refused)

    async def is_going(self, name: str) -> bool:
        """Whether the pod was deleted."""
        try:
            pod = await self.api.get(POD, name, namespace="default")
        except NotFound:
            return True
        return "deletionTimestamp" in pod["metadata"]

    async def results(self, name: str) -> list[JsonObject]:
        """What the claim was given."""
        claim = await self.api.get(RESOURCE_CLAIM, name, namespace="default")
        given: list[JsonObject] = claim["status"]["allocation"]["devices"]["results"]
        return given

    async def has_no_claims(self) -> bool:
        """Whether all claims are gone."""
        return not (await self.api.list(RESOURCE_CLAIM, namespace="default")).items


@asynccontextmanager
async def sandbox_cluster() -> AsyncIterator[Cluster]:
    """The sandbox's API server, scheduler and controllers, without kubelets."""
    server = ApiServer()
    await server.start()
    api = LocalApi(server.store)
    recorder = EventRecorder(api, EventSource(component="default-scheduler", host=""))
    try:
        async with placing() as place, asyncio.TaskGroup() as tasks:
            scheduler = Scheduler(api, place, api.bind, recorder)
            parts = (recorder, scheduler, ClaimController(api), TaintEviction(api))
            running = [tasks.create_task(part.run()) for part in parts]
            yield Cluster(api=api)
            for task in running:
                task.cancel()
    finally:
        await server.stop()
