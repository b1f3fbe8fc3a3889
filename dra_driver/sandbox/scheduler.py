"""The sandbox's scheduler: pods with claims get the first node on which our allocator can serve them all.

It reads everything anew for each round, so it decides on what is stored and never on what it remembers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

import structlog

from dra_driver.kube.codec import (
    allocation_to_json,
    claim_from_json,
    class_from_json,
    slice_from_json,
)
from dra_driver.kube.watch import Cache, Scope
from dra_driver.model.claim import Allocation, Claim
from dra_driver.model.errors import Conflict, DraError, KubeError, NotFound
from dra_driver.model.kinds import DEVICE_CLASS, NODE, POD, RESOURCE_CLAIM, RESOURCE_SLICE
from dra_driver.model.slices import ResourceSlice
from dra_driver.ports import JsonObject, KubeApi, Listing, Recorder
from dra_driver.rules.nodes import NodeInfo
from dra_driver.sandbox.claims import FINALIZER
from dra_driver.sandbox.placement import Placed, Question, Unplaced

log = structlog.get_logger(__name__)

Place = Callable[[Question], Awaitable[Placed | Unplaced]]
Bind = Callable[[str, str, str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """What one round of scheduling knows; `claims` by namespace and name, brought up to date as pods are placed."""

    nodes: tuple[NodeInfo, ...]
    slices: Listing
    classes: Listing
    claims: dict[tuple[str, str], JsonObject]


class Scheduler:
    """`place` answers where a pod's claims fit; `bind` gives a pod its node."""

    def __init__(self, api: KubeApi, place: Place, bind: Bind, recorder: Recorder) -> None:
        self._api = api
        self._place = place
        self._bind = bind
        self._recorder = recorder
        self._due = asyncio.Event()

    async def run(self) -> None:
        """Schedule after every change of anything that matters, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for kind in (POD, NODE, RESOURCE_CLAIM, RESOURCE_SLICE, DEVICE_CLASS):
                cache = Cache(self._api, Scope(kind=kind), on_change=lambda _: self._due.set())
                tasks.create_task(cache.run())
            while True:
                await self._due.wait()
                self._due.clear()
                try:
                    await self.schedule_pending()
                except KubeError as error:
                    log.warning("scheduler tries again", error=str(error))
                    self._due.set()
                await asyncio.sleep(0.02)  # let changes that come together be one

    async def schedule_pending(self) -> None:
        """One attempt for each pod that has no node yet, oldest first."""
        pods = [pod for pod in (await self._api.list(POD)).items if _is_pending(pod)]
        if not pods:
            return
        listing = await self._api.list(RESOURCE_CLAIM)
        now = _Round(
            nodes=tuple(_nodes(await self._api.list(NODE))),
            slices=await self._api.list(RESOURCE_SLICE),
            classes=await self._api.list(DEVICE_CLASS),
            claims={(c["metadata"]["namespace"], c["metadata"]["name"]): c for c in listing.items},
        )
        for pod in sorted(
            pods, key=lambda p: (p["metadata"]["creationTimestamp"], p["metadata"]["name"])
        ):
            try:
                await self._schedule(pod, now)
            except (Conflict, NotFound):
                self._due.set()

    async def _schedule(self, pod: JsonObject, now: _Round) -> None:
        names = list(_claim_names(pod))
        raw = [now.claims.get((pod["metadata"]["namespace"], name or "")) for name in names]
        if None in raw:
            await self._refuse(pod, "waiting for the pod's resource claims to be created")
            return
        claims = [claim_from_json(claim) for claim in raw if claim is not None]
        answer = await self._place(
            Question(
                nodes=tuple(node for node in now.nodes if _admits(pod, node)),
                claims=tuple(claims),
                slices=tuple(_decoded(now.slices)),
                classes=tuple(class_from_json(item) for item in now.classes.items),
                all_claims=tuple(claim_from_json(item) for item in now.claims.values()),
            )
        )
        if isinstance(answer, Unplaced):
            await self._refuse(pod, answer.message)
            return
        for claim, allocation in zip(claims, answer.allocations, strict=True):
            key = (claim.ref.namespace, claim.ref.name)
            now.claims[key] = await self._reserve(now.claims[key], claim, allocation, pod)
        await self._bind(pod["metadata"]["namespace"], pod["metadata"]["name"], answer.node)
        message = f"Successfully assigned {pod['metadata']['namespace']}/{pod['metadata']['name']} to {answer.node}"
        self._recorder.event(_reference(pod), level="Normal", reason="Scheduled", message=message)

    async def _reserve(
        self, raw: JsonObject, claim: Claim, allocation: Allocation, pod: JsonObject
    ) -> JsonObject:
        """Write finalizer, allocation and reservation, as far as they are not there."""
        place = {"namespace": claim.ref.namespace}
        finalizers = raw["metadata"].get("finalizers", [])
        if FINALIZER not in finalizers:
            fence = {
                "resourceVersion": raw["metadata"]["resourceVersion"],
                "finalizers": [*finalizers, FINALIZER],
            }
            raw = await self._api.patch(
                RESOURCE_CLAIM, claim.ref.name, {"metadata": fence}, **place
            )
        consumer = {
            "resource": "pods",
            "name": pod["metadata"]["name"],
            "uid": pod["metadata"]["uid"],
        }
        reserved = raw.get("status", {}).get("reservedFor", [])
        status: JsonObject = {
            "reservedFor": [*(r for r in reserved if r["uid"] != consumer["uid"]), consumer]
        }
        if claim.allocation is None:
            status["allocation"] = allocation_to_json(allocation)
        patch = {
            "metadata": {"resourceVersion": raw["metadata"]["resourceVersion"]},
            "status": status,
        }
        return await self._api.patch(
            RESOURCE_CLAIM, claim.ref.name, patch, subresource="status", **place
        )

    async def _refuse(self, pod: JsonObject, message: str) -> None:
        """Say why the pod waits, in its condition and in an Event; nothing where that is said already."""
        conditions = pod.get("status", {}).get("conditions", [])
        if any(c["type"] == "PodScheduled" and c.get("message") == message for c in conditions):
            return
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
        }
        others = [c for c in conditions if c["type"] != "PodScheduled"]
        patch = {"status": {"conditions": [*others, condition]}}
        metadata = pod["metadata"]
        await self._api.patch(
            POD, metadata["name"], patch, namespace=metadata["namespace"], subresource="status"
        )
        self._recorder.event(
            _reference(pod), level="Warning", reason="FailedScheduling", message=message
        )


def _is_pending(pod: JsonObject) -> bool:
    return not pod["spec"].get("nodeName") and not pod["metadata"].get("deletionTimestamp")


def _nodes(listing: Listing) -> Iterator[NodeInfo]:
    for item in sorted(listing.items, key=lambda node: node["metadata"]["name"]):
        if not item.get("spec", {}).get("unschedulable"):
            yield NodeInfo(name=item["metadata"]["name"], labels=item["metadata"].get("labels", {}))


def _admits(pod: JsonObject, node: NodeInfo) -> bool:
    wanted: Mapping[str, str] = pod["spec"].get("nodeSelector", {})
    return all(node.labels.get(key) == value for key, value in wanted.items())


def _claim_names(pod: JsonObject) -> Iterator[str | None]:
    """Names of the pod's claims; None for one that is still to be made from its template."""
    statuses = pod.get("status", {}).get("resourceClaimStatuses", [])
    made = {status["name"]: status.get("resourceClaimName") for status in statuses}
    for entry in pod["spec"].get("resourceClaims", []):
        yield entry.get("resourceClaimName") or made.get(entry["name"])


def _decoded(listing: Listing) -> Iterator[ResourceSlice]:
    for item in listing.items:
        try:
            yield slice_from_json(item)
        except DraError as error:
            log.warning("a slice cannot be read and is left out", error=str(error))


def _reference(pod: JsonObject) -> JsonObject:
    metadata = pod["metadata"]
    return {"apiVersion": "v1", "kind": "Pod"} | {
        key: metadata[key] for key in ("name", "namespace", "uid")
    }
