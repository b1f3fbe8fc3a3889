"""The sandbox's device taint eviction: pods lose their devices where a NoExecute taint is not tolerated (KEP-5055)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypeAlias

import structlog

from dra_driver.kube.codec import claim_from_json, slice_from_json
from dra_driver.kube.watch import Cache, Scope
from dra_driver.model.errors import Conflict, KubeError, NotFound
from dra_driver.model.kinds import POD, RESOURCE_CLAIM, RESOURCE_SLICE
from dra_driver.model.slices import Taint
from dra_driver.ports import JsonObject, KubeApi
from dra_driver.rules.tolerations import untolerated

log = structlog.get_logger(__name__)

Ending: TypeAlias = Mapping[tuple[str, str, str], tuple[Taint, ...]]
"""NoExecute taints by driver, pool and device."""


class TaintEviction:
    """Level-triggered: any change of slices or claims leads to a look at everything. tolerationSeconds does not count."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._due = asyncio.Event()

    async def run(self) -> None:
        """Reconcile after every change, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for kind in (RESOURCE_SLICE, RESOURCE_CLAIM):
                cache = Cache(self._api, Scope(kind=kind), on_change=lambda _: self._due.set())
                tasks.create_task(cache.run())
            while True:
                await self._due.wait()
                self._due.clear()
                try:
                    await self.reconcile()
                except KubeError as error:
                    log.warning("taint eviction tries again", error=str(error))
                    self._due.set()
                    await asyncio.sleep(0.1)

    async def reconcile(self) -> None:
        """Delete every pod for which a claim is reserved whose device does not let it stay."""
        ending = _ending_taints((await self._api.list(RESOURCE_SLICE)).items)
        if not ending:
            return
        for claim in (await self._api.list(RESOURCE_CLAIM)).items:
            if _must_end(claim, ending):
                for consumer in claim["status"].get("reservedFor", ()):
                    await self._evict(claim["metadata"]["namespace"], consumer)

    async def _evict(self, namespace: str, consumer: JsonObject) -> None:
        try:
            await self._api.delete(
                POD,
                consumer["name"],
                namespace=namespace,
                preconditions={"uid": consumer["uid"]},
            )
        except (NotFound, Conflict):
            return


def _ending_taints(slices: tuple[JsonObject, ...]) -> Ending:
    return {
        (item.driver, item.pool.name, device.name): taints
        for item in map(slice_from_json, slices)
        for device in item.devices
        if (taints := tuple(taint for taint in device.taints if taint.effect == "NoExecute"))
    }


def _must_end(claim: JsonObject, ending: Ending) -> bool:
    """As upstream, only tolerations that name NoExecute as their effect let a pod stay."""
    allocation = claim_from_json(claim).allocation
    return any(
        untolerated(
            ending.get((one.driver, one.pool, one.device), ()),
            (toleration for toleration in one.tolerations if toleration.effect == "NoExecute"),
        )
        for one in (allocation.results if allocation else ())
    )
