"""Cases put to a real scheduler: all their objects are written, then their pods, and the answers are read off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dra_driver.kube.codec import claim_from_json
from dra_driver.kube.rest import RestApi
from dra_driver.model.errors import NotFound
from dra_driver.model.kinds import (
    DEVICE_CLASS,
    NODE,
    POD,
    RESOURCE_CLAIM,
    RESOURCE_SLICE,
    Kind,
)
from dra_driver.ports import JsonObject
from tests.cluster.differential.case import CASE_LABEL, Case
from tests.cluster.differential.verdict import NOWHERE, Answer, normal

_AT_ONCE = 16
_SETTLE_S = 1.5
"""The scheduler hears of nodes, slices, classes, claims and pods in no certain order: it gets time for the first four."""

_PATIENCE_S = 15.0
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The scheduler's answer to a case, and what it says about it."""

    answer: Answer
    message: str = ""


Accepts = Callable[[Case, Reply], bool]


class Trial:
    """Puts cases to the scheduler of a cluster, in one namespace, which must allow administrative access."""

    def __init__(self, api: RestApi, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    async def put(self, cases: Sequence[Case], accepts: Accepts) -> Mapping[str, Reply]:
        """The replies by case, as soon as all are accepted, or no more of them have been for a while. Leaves nothing."""
        try:
            for kind, objects in _objects(cases).items():
                await self._each(self._create, [(kind, body) for body in objects])
            await asyncio.sleep(_SETTLE_S)
            await self._each(self._create, [(POD, _pod(case)) for case in cases])
            return await self._replies(cases, accepts)
        finally:
            await self._each(self._delete, [(POD, _pod(case)) for case in cases])
            for kind, objects in _objects(cases).items():
                await self._each(self._delete, [(kind, body) for body in objects])

    async def _replies(self, cases: Sequence[Case], accepts: Accepts) -> Mapping[str, Reply]:
        """A refusal is provisional: pods are looked at again, for instance when a slice is heard of late."""
        fewest, since = len(cases) + 1, time.monotonic()
        while True:
            replies = await self._look()
            open_cases = sum(
                case.name not in replies or not accepts(case, replies[case.name]) for case in cases
            )
            if open_cases < fewest:
                fewest, since = open_cases, time.monotonic()
            if not open_cases or time.monotonic() > since + _PATIENCE_S:
                return replies
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _look(self) -> Mapping[str, Reply]:
        pods = (await self._api.list(POD, namespace=self._namespace)).items
        listing = await self._api.list(RESOURCE_CLAIM, namespace=self._namespace)
        claims = {claim["metadata"]["name"]: claim for claim in listing.items}
        replies = {pod["metadata"]["name"]: _reply(pod, claims) for pod in pods}
        return {name: reply for name, reply in replies.items() if reply is not None}

    async def _create(self, kind: Kind, body: JsonObject) -> None:
        namespace = self._namespace if kind.namespaced else None
        await self._api.create(kind, body, namespace=namespace)
        if kind is RESOURCE_CLAIM and "status" in body:
            await self._api.patch(
                kind,
                body["metadata"]["name"],
                {"status": body["status"]},
                namespace=namespace,
                subresource="status",
            )

    async def _delete(self, kind: Kind, body: JsonObject) -> None:
        namespace = self._namespace if kind.namespaced else None
        name = body["metadata"]["name"]
        try:
            await self._api.delete(kind, name, namespace=namespace, grace_period_s=0)
        except NotFound:
            return

    @staticmethod
    async def _each(
        action: Callable[[Kind, JsonObject], Awaitable[None]],
        objects: Iterable[tuple[Kind, JsonObject]],
    ) -> None:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(kind: Kind, body: JsonObject) -> None:
            async with slots:
                await action(kind, body)

        async with asyncio.TaskGroup() as tasks:
            for kind, body in objects:
                tasks.create_task(one(kind, body))


def _objects(cases: Sequence[Case]) -> Mapping[Kind, Sequence[JsonObject]]:
    return {
        NODE: [node for case in cases for node in case.nodes],
        DEVICE_CLASS: [one for case in cases for one in case.classes],
        RESOURCE_SLICE: [one for case in cases for one in case.slices],
        RESOURCE_CLAIM: [claim for case in cases for claim in (*case.held, *case.claims)],
    }


def _pod(case: Case) -> JsonObject:
    names = [claim["metadata"]["name"] for claim in case.claims]
    return {
        "apiVersion": "v1",
        "kind": POD.kind,
        "metadata": {"name": case.name},
        "spec": {
            "nodeSelector": {CASE_LABEL: case.name},
            "tolerations": [{"operator": "Exists"}],  # nobody runs these nodes
            "containers": [{"name": "main", "image": "none.test/none"}],
            "resourceClaims": [{"name": name, "resourceClaimName": name} for name in names],
        },
    }


def _reply(pod: JsonObject, claims: Mapping[str, JsonObject]) -> Reply | None:
    conditions = pod.get("status", {}).get("conditions", [])
    scheduled = next((c for c in conditions if c["type"] == "PodScheduled"), None)
    if scheduled is None:
        return None
    if scheduled["status"] != "True":
        return Reply(answer=NOWHERE, message=scheduled.get("message", ""))
    names = [entry["resourceClaimName"] for entry in pod["spec"]["resourceClaims"]]
    allocations = [claim_from_json(claims[name]).allocation for name in names]
    return Reply(
        answer=Answer(
            node=pod["spec"]["nodeName"], allocations=tuple(normal(a) for a in allocations if a)
        )
    )
