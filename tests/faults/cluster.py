"""The API server beside which plugins are killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex

from dra_driver.model.kinds import NAMESPACE, NODE, RESOURCE_CLAIM
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.local import LocalApi
from dra_driver.sandbox.apiserver.server import ApiServer


class Cluster:
    """An API server with one Node, in whose `default` namespace administrators may ask for adminAccess."""

    def __init__(self, server: ApiServer, node: str) -> None:
        self.server = server
        self.node = node
        self.api = LocalApi(server.store)

    async def new_claim(self, *devices: str, admin: bool = False) -> JsonObject:
        """A claim that these devices are allocated to."""
        exactly: JsonObject = {"deviceClassName": "any", "count": len(devices)}
        place: JsonObject = {
            "driver": DRIVER_NAME,
            "pool": f"{self.node}/nvidia",
            "request": "r",
        }
        if admin:
            exactly["adminAccess"] = place["adminAccess"] = True
        spec = {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}
        body = {"metadata": {"generateName": "claim-"}, "spec": spec}
        claim = await self.api.create(RESOURCE_CLAIM, body, namespace="default")
        results = [place | {"device": device} for device in devices]
        return await self.api.patch(
            RESOURCE_CLAIM,
            claim["metadata"]["name"],
            {"status": {"allocation": {"devices": {"results": results}}}},
            namespace="default",
            subresource="status",
        )

    async def delete(self, claim: JsonObject) -> None:
        """The claim is gone."""
        await self.api.delete(RESOURCE_CLAIM, claim["metadata"]["name"], namespace="default")

    async def reuse(self, claim: JsonObject) -> None:
        """Somebody else uses the claim now, as a scheduler writes it down: it may be prepared again."""
        await self.api.patch(
            RESOURCE_CLAIM,
            claim["metadata"]["name"],
            {"metadata": {"annotations": {"user": token_hex(4)}}},
            namespace="default",
        )


@asynccontextmanager
async def serving_cluster(node: str) -> AsyncIterator[Cluster]:
    """An API server for the block."""
    server = ApiServer()
    await server.start()
    cluster = Cluster(server, node)
    await cluster.api.create(NODE, {"metadata": {"name": node}})
    label = {"resource.kubernetes.io/admin-access": "true"}
    await cluster.api.patch(NAMESPACE, "default", {"metadata": {"labels": label}})
    try:
        yield cluster
    finally:
        await server.stop()
