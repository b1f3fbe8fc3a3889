"""One pod's life on a node."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import structlog
from structlog.contextvars import bound_contextvars

from dra_driver.model import kinds
from dra_driver.model.errors import DraError, KubeError, NotFound
from dra_driver.ports import JsonObject, KubeApi, Recorder
from dra_driver.sandbox.kubelet import status
from dra_driver.sandbox.kubelet.cdi import UnresolvableDevice
from dra_driver.sandbox.kubelet.claims import NodeClaims
from dra_driver.sandbox.kubelet.containers import PodViews
from dra_driver.sandbox.kubelet.deadlines import Deadlines
from dra_driver.sandbox.kubelet.health import NodeHealth
from dra_driver.sandbox.kubelet.resources import with_health

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What the pods of a node have in common."""

    name: str
    api: KubeApi
    events: Recorder
    claims: NodeClaims
    health: NodeHealth
    views: PodViews
    deadlines: Deadlines


class PodWorker:
    """One pod (one UID), from the moment the kubelet sees it until it is gone from the API; `pod` is its latest state."""

    def __init__(self, node: Node, pod: JsonObject) -> None:
        self._node = node
        self._deletion = asyncio.Event()
        self.observe(pod)

    def observe(self, pod: JsonObject) -> None:
        """The pod as it is now."""
        self.pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            self._deletion.set()

    async def show_health(self) -> None:
        """A running pod's status says how its devices are now. What fails is done by the next call."""
        if self._deletion.is_set() or self.pod.get("status", {}).get("phase") != "Running":
            return
        statuses = self.pod["status"]["containerStatuses"]
        try:
            updated = self._with_health(statuses)
            if updated != statuses:
                await self._patch({"status": {"containerStatuses": updated}})
        except DraError as error:
            await _log_failure(error)

    async def run(self) -> None:
        """Start the pod; once it is being deleted, stop it. Starting is given up then, however far it got."""
        metadata = self.pod["metadata"]
        with bound_contextvars(pod=f"{metadata['namespace']}/{metadata['name']}"):
            if not self._deletion.is_set():
                async with asyncio.TaskGroup() as tasks:
                    starting = tasks.create_task(self._start())
                    await self._deletion.wait()
                    starting.cancel()
            await asyncio.sleep(self._node.deadlines.termination_s)
            await self._node.deadlines.persist(self._stop, failed=_log_failure)

    async def _start(self) -> None:
        await self._node.deadlines.persist(self._create_containers, failed=self._report)
        if self.pod.get("status", {}).get("phase") != "Running":
            await self._node.deadlines.persist(self._announce, failed=_log_failure)
        _log.info("pod runs")

    async def _create_containers(self) -> None:
        pod = self.pod
        await self._node.claims.prepare(pod)
        self._node.views.write(pod, self._node.claims.held(pod))

    async def _announce(self) -> None:
        patch = status.running(self.pod)
        patch["status"]["containerStatuses"] = self._with_health(
            patch["status"]["containerStatuses"]
        )
        await self._patch(patch)

    def _with_health(self, statuses: list[JsonObject]) -> list[JsonObject]:
        held = self._node.claims.held(self.pod)
        return with_health(statuses, self.pod, held, self._node.health)

    async def _report(self, error: DraError) -> None:
        """Say why the pod does not start: in an Event each time, in its status when it changes."""
        created = isinstance(error, UnresolvableDevice)
        reason = "CreateContainerError" if created else "FailedPrepareDynamicResources"
        message = str(error) if created else f"Failed to prepare dynamic resources: {error}"
        pod, metadata = self.pod, self.pod["metadata"]
        regarding = {"apiVersion": "v1", "kind": "Pod"}
        regarding |= {key: metadata[key] for key in ("namespace", "name", "uid")}
        self._node.events.event(regarding, level="Warning", reason=reason, message=message)
        _log.warning("pod does not start", reason=reason, error=str(error))
        now = pod.get("status", {})
        if now.get("phase") == "Running" or now.get("message") == message:
            return
        try:
            await self._patch(status.waiting(pod, reason=reason, message=message))
        except KubeError as failure:
            await _log_failure(failure)

    async def _stop(self) -> None:
        """The containers are gone; the pod may go only after its devices were given back."""
        metadata = self.pod["metadata"]
        await self._node.claims.release(metadata["uid"])
        self._node.views.remove(self.pod)
        with suppress(NotFound):
            await self._node.api.delete(
                kinds.POD,
                metadata["name"],
                namespace=metadata["namespace"],
                preconditions={"uid": metadata["uid"]},
                grace_period_s=0,
            )
        _log.info("pod stopped")

    async def _patch(self, patch: JsonObject) -> None:
        metadata = self.pod["metadata"]
        await self._node.api.patch(
            kinds.POD,
            metadata["name"],
            patch,
            namespace=metadata["namespace"],
            subresource="status",
        )


async def _log_failure(error: DraError) -> None:
    _log.warning("trying again", error=str(error))
