"""The pods of a node, each in the hands of a worker."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from dra_driver.kube.watch import Cache, Scope
from dra_driver.model import kinds
from dra_driver.ports import JsonObject
from dra_driver.sandbox.kubelet.worker import Node, PodWorker


class _Started(NamedTuple):
    worker: PodWorker
    task: asyncio.Task[None]


class Pods:
    """All pods whose spec.nodeName is this node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._changed = asyncio.Event()
        self._started: dict[str, _Started] = {}
        scope = Scope(kind=kinds.POD, selectors={"fieldSelector": f"spec.nodeName={node.name}"})
        self._cache = Cache(node.api, scope, on_change=lambda _: self._changed.set())

    def all(self) -> list[JsonObject]:
        """Every pod of the node, as it was last seen."""
        return list(self._cache.objects.values())

    async def run(self) -> None:
        """Follow the pods until cancelled. Nothing is released before all pods are known."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._cache.run())
            await self._cache.synced.wait()
            tasks.create_task(self._reconcile())
            tasks.create_task(self._show_health())
            while True:
                self._changed.clear()
                self._sync(tasks)
                await self._changed.wait()

    def _sync(self, tasks: asyncio.TaskGroup) -> None:
        """A worker for every pod that is there, and none for others: a pod that vanished is left to `_reconcile`."""
        pods = {pod["metadata"]["uid"]: pod for pod in self._cache.objects.values()}
        for uid in self._started.keys() - pods.keys():
            vanished = self._started.pop(uid)
            vanished.task.cancel()
            self._node.views.remove(vanished.worker.pod)
        for uid, pod in pods.items():
            if uid in self._started:
                self._started[uid].worker.observe(pod)
            else:
                worker = PodWorker(self._node, pod)
                self._started[uid] = _Started(worker, tasks.create_task(worker.run()))

    async def _show_health(self) -> None:
        """Again and again: silence, too, changes what is known of a device."""
        while True:
            for started in list(self._started.values()):
                await started.worker.show_health()
            await asyncio.sleep(self._node.deadlines.poll_s)

    async def _reconcile(self) -> None:
        """What pods left behind that were force-deleted, or deleted while no kubelet ran, is released in the end."""
        while True:
            await asyncio.sleep(self._node.deadlines.reconcile_s)
            await self._node.claims.release_all_but(self._started.keys())
