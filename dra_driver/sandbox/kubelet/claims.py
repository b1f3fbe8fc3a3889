"""The claims that pods of this node use: checked, prepared once, released with the last pod (KEP-4381, kubelet's DRA manager)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import structlog

from dra_driver.model import kinds
from dra_driver.model.claim import ClaimRef
from dra_driver.model.errors import ClaimError
from dra_driver.ports import JsonObject, KubeApi
from dra_driver.sandbox.kubelet import calls
from dra_driver.sandbox.kubelet.checkpoint import Checkpoint, HeldClaim
from dra_driver.sandbox.kubelet.deadlines import Deadlines
from dra_driver.sandbox.kubelet.metrics import write_metrics
from dra_driver.sandbox.kubelet.plugins import Plugins

Key: TypeAlias = tuple[str, str]

_log = structlog.get_logger()


class NodeClaims:
    """Every method raises DraError where something failed, and is simply called again later: each continues the other's work.

    Keyed by namespace and name, as in the kubelet: a claim that was deleted and made again must wait for its predecessor.
    """

    def __init__(
        self,
        api: KubeApi,
        plugins: Plugins,
        checkpoint: Checkpoint,
        metrics: Path,
        deadlines: Deadlines,
    ) -> None:
        self._api = api
        self._plugins = plugins
        self._checkpoint = checkpoint
        self._metrics = metrics
        self._deadlines = deadlines
        self._held: dict[Key, HeldClaim] = {_key(held.ref): held for held in checkpoint.load()}
        self._locks: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)

    def held(self, pod: JsonObject) -> dict[str, HeldClaim]:
        """The pod's claims by the name that the pod has for them, as far as they are held."""
        namespace = pod["metadata"]["namespace"]
        return {
            name: self._held[namespace, claim]
            for name, claim in claim_names(pod).items()
            if (namespace, claim) in self._held
        }

    async def prepare(self, pod: JsonObject) -> None:
        """All claims of the pod are prepared by all their drivers; those that were already are left alone."""
        namespace = pod["metadata"]["namespace"]
        claims = [
            _checked_claim(
                await self._api.get(kinds.RESOURCE_CLAIM, name, namespace=namespace), pod
            )
            for name in sorted(set(claim_names(pod).values()))
        ]
        for driver in {driver for claim in claims for driver in claim.devices}:
            self._plugins.endpoint(driver)  # all drivers must be there before any is called
        async with self._locked(_key(claim.ref) for claim in claims):
            held = [self._hold(claim) for claim in claims]
            self._save()
            await self._prepare([claim for claim in held if not claim.prepared])

    async def release(self, pod_uid: str) -> None:
        """The pod uses no claim any more; claims that no other pod uses are unprepared and forgotten."""
        used = [key for key, claim in self._held.items() if pod_uid in claim.pods]
        async with self._locked(used):
            claims = [self._held[key] for key in used if key in self._held]
            last = [claim for claim in claims if claim.pods == {pod_uid}]
            for driver, refs in _by_driver(last).items():
                endpoint = self._plugins.endpoint(driver)
                await calls.unprepare(endpoint, refs, timeout_s=self._deadlines.unprepare_s)
            for claim in claims:
                claim.pods.discard(pod_uid)
                if not claim.pods:
                    del self._held[_key(claim.ref)]
            self._save()

    async def release_all_but(self, active_pods: Collection[str]) -> None:
        """Claims of pods that are not active any more are released, as far as that works now."""
        for pod_uid in {uid for claim in self._held.values() for uid in claim.pods}:
            if pod_uid in active_pods:
                continue
            try:
                await self.release(pod_uid)
            except ClaimError as error:
                _log.warning("claims of a vanished pod not released", pod=pod_uid, error=str(error))

    def _hold(self, claim: HeldClaim) -> HeldClaim:
        held = self._held.setdefault(_key(claim.ref), claim)
        if held.ref.uid != claim.ref.uid:
            raise ClaimError(
                f"old ResourceClaim with same name {claim.ref} and different UID {held.ref.uid} still exists "
                "(previous pod force-deleted?!)"
            )
        held.pods |= claim.pods
        return held

    async def _prepare(self, claims: list[HeldClaim]) -> None:
        """One driver after the other, each with all its claims."""
        by_uid = {claim.ref.uid: claim for claim in claims}
        for driver, refs in _by_driver(claims).items():
            endpoint = self._plugins.endpoint(driver)
            answers = await calls.prepare(endpoint, refs, timeout_s=self._deadlines.prepare_s)
            for uid, devices in answers.items():
                by_uid[uid].devices[driver] = devices
            self._save()
        for claim in claims:
            claim.prepared = True

    def _save(self) -> None:
        self._checkpoint.save(self._held.values())
        write_metrics(self._metrics, self._held.values())

    @asynccontextmanager
    async def _locked(self, keys: Iterable[Key]) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for key in sorted(set(keys)):
                await stack.enter_async_context(self._locks[key])
            yield


def claim_names(pod: JsonObject) -> dict[str, str]:
    """ResourceClaims by the name that the pod has for each; entries that turned out to need none are left out.

    Raises ClaimError where a claim has yet to be made from its template.
    """
    statuses = pod.get("status", {}).get("resourceClaimStatuses") or []
    generated = {entry["name"]: entry.get("resourceClaimName") for entry in statuses}
    names: dict[str, str] = {}
    for entry in pod["spec"].get("resourceClaims") or []:
        name = entry["name"]
        if "resourceClaimName" in entry:
            names[name] = entry["resourceClaimName"]
        elif name not in generated:
            raise ClaimError(f"pod claim {name!r}: its ResourceClaim has not been created yet")
        elif generated[name] is not None:
            names[name] = generated[name]
    return names


def _checked_claim(claim: JsonObject, pod: JsonObject) -> HeldClaim:
    """The claim, held by the pod; ClaimError unless it is allocated, and reserved for this very pod."""
    metadata, status = claim["metadata"], claim.get("status", {})
    ref = ClaimRef(namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"])
    pod_uid = pod["metadata"]["uid"]
    direct = {entry.get("resourceClaimName") for entry in pod["spec"]["resourceClaims"]}
    owners = {owner["uid"] for owner in metadata.get("ownerReferences", [])}
    if ref.name not in direct and pod_uid not in owners:
        raise ClaimError(f"ResourceClaim {ref} was not generated for pod {pod['metadata']['name']}")
    if "allocation" not in status:
        raise ClaimError(f"ResourceClaim {ref} is not allocated")
    if pod_uid not in {consumer["uid"] for consumer in status.get("reservedFor", [])}:
        raise ClaimError(f"ResourceClaim {ref} is not reserved for pod {pod['metadata']['name']}")
    results = status["allocation"].get("devices", {}).get("results", [])
    return HeldClaim(ref=ref, pods={pod_uid}, devices={result["driver"]: () for result in results})


def _by_driver(claims: Iterable[HeldClaim]) -> dict[str, list[ClaimRef]]:
    batches: defaultdict[str, list[ClaimRef]] = defaultdict(list)
    for claim in claims:
        for driver in claim.devices:
            batches[driver].append(claim.ref)
    return batches


def _key(ref: ClaimRef) -> Key:
    return ref.namespace, ref.name
