"""The sandbox's claim controller: what kube-controller-manager does for claims.

Templates become claims, reservations of pods that have ended are taken back, claims that nobody reserves are deallocated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import structlog

from dra_driver.kube.watch import Cache, Scope
from dra_driver.model.errors import Conflict, KubeError, NotFound
from dra_driver.model.kinds import POD, RESOURCE_CLAIM, RESOURCE_CLAIM_TEMPLATE
from dra_driver.ports import JsonObject, KubeApi

log = structlog.get_logger(__name__)

FINALIZER = "resource.kubernetes.io/delete-protection"
POD_CLAIM_NAME = "resource.kubernetes.io/pod-claim-name"


class ClaimController:
    """Level-triggered: any change of a pod, claim or template leads to a look at everything."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._due = asyncio.Event()

    async def run(self) -> None:
        """Reconcile after every change, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for kind in (POD, RESOURCE_CLAIM, RESOURCE_CLAIM_TEMPLATE):
                cache = Cache(self._api, Scope(kind=kind), on_change=lambda _: self._due.set())
                tasks.create_task(cache.run())
            while True:
                await self._due.wait()
                self._due.clear()
                try:
                    await self.reconcile()
                except KubeError as error:
                    log.warning("claim controller tries again", error=str(error))
                    self._due.set()
                    await asyncio.sleep(0.1)

    async def reconcile(self) -> None:
        """One look at all pods and claims, and the writes that follow from it."""
        pods = (await self._api.list(POD)).items
        claims = (await self._api.list(RESOURCE_CLAIM)).items
        owned = {_owner_key(claim): claim["metadata"]["name"] for claim in claims}
        for pod in pods:
            if not pod["metadata"].get("deletionTimestamp"):
                await self._generate(pod, owned)
        alive = {pod["metadata"]["uid"] for pod in pods if not _is_finished(pod)}
        for claim in claims:
            await self._settle(claim, alive)

    async def _generate(self, pod: JsonObject, owned: dict[tuple[str, str], str]) -> None:
        """A claim for each template that the pod names, and the pod's status that says which."""
        metadata = pod["metadata"]
        statuses = {s["name"]: s for s in pod.get("status", {}).get("resourceClaimStatuses", [])}
        wanted = {name: template for name, template in _templates(pod) if name not in statuses}
        for name, template_name in wanted.items():
            made = owned.get((metadata["uid"], name)) or await self._create(
                pod, name, template_name
            )
            if made is not None:
                statuses[name] = {"name": name, "resourceClaimName": made}
        if wanted and statuses:
            patch = {"status": {"resourceClaimStatuses": list(statuses.values())}}
            await self._api.patch(
                POD, metadata["name"], patch, namespace=metadata["namespace"], subresource="status"
            )

    async def _create(self, pod: JsonObject, name: str, template_name: str) -> str | None:
        metadata = pod["metadata"]
        try:
            template = await self._api.get(
                RESOURCE_CLAIM_TEMPLATE, template_name, namespace=metadata["namespace"]
            )
        except NotFound:
            return None  # the template may come later, and its coming is a change
        inner = template["spec"].get("metadata", {})
        owner = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        body = {
            "metadata": {
                "generateName": f"{metadata['name']}-{name}-",
                "labels": inner.get("labels", {}),
                "annotations": inner.get("annotations", {}) | {POD_CLAIM_NAME: name},
                "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
            },
            "spec": template["spec"]["spec"],
        }
        created = await self._api.create(RESOURCE_CLAIM, body, namespace=metadata["namespace"])
        made: str = created["metadata"]["name"]
        return made

    async def _settle(self, claim: JsonObject, alive: set[str]) -> None:
        """Take back reservations of pods that have ended; deallocate a claim that nobody reserves."""
        metadata, status = claim["metadata"], claim.get("status", {})
        reserved = status.get("reservedFor", [])
        kept = [consumer for consumer in reserved if consumer["uid"] in alive]
        if kept == reserved and (kept or "allocation" not in status):
            return
        change: JsonObject = {"reservedFor": kept or None}
        if not kept:
            change["allocation"] = None
        fence = {"resourceVersion": metadata["resourceVersion"]}
        place = {"namespace": metadata["namespace"]}
        try:
            written = await self._api.patch(
                RESOURCE_CLAIM,
                metadata["name"],
                {"metadata": fence, "status": change},
                subresource="status",
                **place,
            )
            if not kept and FINALIZER in metadata.get("finalizers", []):
                others = [f for f in metadata["finalizers"] if f != FINALIZER]
                fence = {"resourceVersion": written["metadata"]["resourceVersion"]}
                patch = {"metadata": fence | {"finalizers": others or None}}
                await self._api.patch(RESOURCE_CLAIM, metadata["name"], patch, **place)
        except (Conflict, NotFound):
            self._due.set()


def _templates(pod: JsonObject) -> Iterator[tuple[str, str]]:
    for entry in pod["spec"].get("resourceClaims", []):
        if "resourceClaimTemplateName" in entry:
            yield entry["name"], entry["resourceClaimTemplateName"]


def _owner_key(claim: JsonObject) -> tuple[str, str]:
    metadata = claim["metadata"]
    owners = [
        owner["uid"] for owner in metadata.get("ownerReferences", []) if owner.get("controller")
    ]
    return (owners[0] if owners else "", metadata.get("annotations", {}).get(POD_CLAIM_NAME, ""))


def _is_finished(pod: JsonObject) -> bool:
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}
