"""A kubelet without containers: it does for DRA what the real one does, by the same contract, on one node."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import structlog
from structlog.contextvars import bound_contextvars

from dra_driver.kube.events import EventRecorder, EventSource
from dra_driver.model import kinds
from dra_driver.model.errors import Conflict, DraError
from dra_driver.ports import KubeApi
from dra_driver.sandbox.kubelet import status
from dra_driver.sandbox.kubelet.checkpoint import Checkpoint
from dra_driver.sandbox.kubelet.claims import NodeClaims
from dra_driver.sandbox.kubelet.containers import PodViews
from dra_driver.sandbox.kubelet.deadlines import Deadlines
from dra_driver.sandbox.kubelet.health import NodeHealth
from dra_driver.sandbox.kubelet.plugins import Plugins
from dra_driver.sandbox.kubelet.pod_resources import PodResources
from dra_driver.sandbox.kubelet.pods import Pods
from dra_driver.sandbox.kubelet.registry import Registry
from dra_driver.sandbox.kubelet.slices import SliceWiper
from dra_driver.sandbox.kubelet.worker import Node

_log = structlog.get_logger()


class Kubelet:
    """One node of a sandbox. Its files are all below `root`.

        plugins_registry/           drivers put their registration sockets here
        plugins/                    and their own files here
        pods/<namespace>_<pod>.json what each container of a running pod would find inside
        pod-resources/kubelet.sock  which devices the pods have, over gRPC
        dra_manager_state.json      the claims in use
        metrics                     how many claims each driver has in use, as a scrape

    To restart it, cancel `run` and run another one over the same folder.
    """

    def __init__(
        self,
        api: KubeApi,
        node: str,
        root: Path,
        cdi_dirs: Sequence[Path],
        *,
        deadlines: Deadlines | None = None,
    ) -> None:
        self._api = api
        self._node = node
        self._deadlines = deadlines or Deadlines()
        self._folders = [
            root / name for name in ("plugins_registry", "plugins", "pods", "pod-resources")
        ]
        registry, _, views, pod_resources = self._folders
        plugins = Plugins()
        self._health = NodeHealth(self._deadlines)
        self._registry = Registry(registry, plugins, self._health, self._deadlines)
        self._slices = SliceWiper(api, node, plugins, self._deadlines)
        self._events = EventRecorder(api, EventSource(component="kubelet", host=node))
        checkpoint = Checkpoint(root / "dra_manager_state.json")
        claims = NodeClaims(api, plugins, checkpoint, root / "metrics", self._deadlines)
        shared = Node(
            name=node,
            api=api,
            events=self._events,
            claims=claims,
            health=self._health,
            views=PodViews(views, cdi_dirs),
            deadlines=self._deadlines,
        )
        self._pods = Pods(shared)
        self._lister = PodResources(pod_resources / "kubelet.sock", claims, self._pods.all)

    async def run(self) -> None:
        """Be the node's kubelet until cancelled. The slices of the node are wiped before any driver is let in."""
        with bound_contextvars(node=self._node):
            self._make_folders()
            await self._deadlines.persist(self._register_node, failed=_log_failure)
            await self._deadlines.persist(self._slices.wipe_all, failed=_log_failure)
            async with asyncio.TaskGroup() as tasks:
                for part in (self._registry, self._slices, self._events, self._pods, self._lister):
                    tasks.create_task(part.run())

    def _make_folders(self) -> None:
        for folder in self._folders:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)

    async def _register_node(self) -> None:
        try:
            await self._api.create(kinds.NODE, status.node(self._node))
        except Conflict:
            _log.debug("node exists already")
        version = self._health.version = await self._api.server_version()
        ready = status.node_ready("v{}.{}.{}".format(*version))
        await self._api.patch(kinds.NODE, self._node, ready, subresource="status")


async def _log_failure(error: DraError) -> None:
    _log.warning("kubelet cannot start yet", error=str(error))
