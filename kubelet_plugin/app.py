"""The plugin process: everything is put together here, then served until SIGTERM.

Order matters. The records are loaded before the first socket opens, as the kubelet may call at once; the sockets open before
hardware is looked at and before the API server's client is imported, as replays and unprepares need neither; slices come last.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import count

import structlog
from grpc.aio import Server

from dra_driver.cdi.folder import CdiFolder
from dra_driver.config.settings import PluginSettings
from dra_driver.journal.store import ClaimJournal, read_boot_id
from dra_driver.kube.credentials import Access, find_endpoint
from dra_driver.kube.endpoint import Endpoint
from dra_driver.model.errors import DraError, root_cause
from dra_driver.model.names import DRIVER_NAME
from dra_driver.observe.containers import Containers
from dra_driver.ports import SystemClock, beat
from dra_driver.rules.publish import PublishMode
from dra_driver.wire.pod_resources import pods_by_claim
from dra_driver.wire.sockets import create_private_folder, serving
from kubelet_plugin.activity import Users
from kubelet_plugin.cluster import Cluster
from kubelet_plugin.device_readings import device_readings
from kubelet_plugin.duties import Duties
from kubelet_plugin.hardware import open_backends
from kubelet_plugin.health import HealthReport
from kubelet_plugin.health_service import HealthBoard, HealthService
from kubelet_plugin.instances import Instance, joined
from kubelet_plugin.levels import levels
from kubelet_plugin.metrics import Levels, PluginMetrics
from kubelet_plugin.node import Ground, Node, build_node
from kubelet_plugin.registration import Registration
from kubelet_plugin.service import DraService
from kubelet_plugin.sockets import plugin_sockets, remove_predecessors
from kubelet_plugin.state import NodeState
from kubelet_plugin.targets import PublishPolicy
from kubelet_plugin.telemetry import Telemetry

log = structlog.get_logger(__name__)

PING_S = 6.0
"""With the deadline of a call (sdkTimeoutS) this is how late a GPU that hangs is noticed."""
PINGS_PER_LOOK = 50
"""A whole look costs a hundred times as much, and finds what others have changed: partitions, modes."""
HANG_UP_S = 1.0
"""So long a client that does not hang up is waited for once all calls have been answered."""
COLLECT_AFTER = (1_000, 50, 10)
"""So many objects are made, and not freed, before the next look for garbage; so many looks before one that takes in what those left.

A call leaves five objects that are garbage, all of gRPC's own. A look takes less than a millisecond, every 52nd five, and one of all that came
since the start, after thousands of claims, ten with 1,000 held. Every 20,000 objects it took 8 to 18, and one call in a hundred waited for it.
"""


async def run(settings: PluginSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises DraError where the process cannot start."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    create_private_folder(settings.data_dir)
    with joined(settings.data_dir, settings.pod_uid) as instance:
        try:
            await Process(settings, instance).serve(stop)
        except* DraError as group:
            raise root_cause(group) from None


class Process:
    """All parts of one plugin process, and the order in which they start and end."""

    def __init__(self, settings: PluginSettings, instance: Instance) -> None:
        self._settings = settings
        self._instance = instance
        self._board = HealthBoard()
        self._metrics = PluginMetrics(version=version("dra-driver"), levels=self._levels)
        self._cluster = Cluster(
            _endpoint(settings), node=settings.node_name, on_answer=self._metrics.api_request
        )
        self._telemetry = Telemetry(self._metrics, self._cluster.events, node=settings.node_name)
        self._backends = open_backends(settings)
        if not self._backends:
            log.warning("no GPU driver is loaded on this node, so there is nothing to publish")
        self._node = self._build_node()
        self._health = HealthReport(self._node.state, self._board)
        self._sockets = plugin_sockets(
            settings.data_dir,
            settings.registry_dir,
            driver=DRIVER_NAME,
            pod_uid=settings.pod_uid,
        )
        self._registration = Registration(
            driver=DRIVER_NAME,
            endpoint=self._sockets.service,
            on_registered=self._lead_on,
        )
        self._duties: Duties | None = None

    async def serve(self, stop: asyncio.Event) -> None:
        """Until `stop` or an error: then calls under way end, the kubelet is told that it is over, and the client to the API server goes last.

        In this order, because a kubelet hangs up on a plugin that it sees go: its calls would fail although they succeed.
        """
        await asyncio.to_thread(self._node.recovery.restore)
        async with asyncio.TaskGroup() as tasks:
            background = tasks.create_task(self._work())
            async with self._listening():
                log.info("serving", node=self._settings.node_name, instance=self._instance.name)
                await stop.wait()
                if self._duties is not None:
                    await self._duties.withdraw_if_drained()
            background.cancel()

    def _build_node(self) -> Node:
        settings, boot_id = self._settings, read_boot_id()
        ask_for_pods = partial(pods_by_claim, settings.pod_resources_socket)
        ground = Ground(
            instance=self._instance,
            lock_file=settings.data_dir / "locks",
            backends=self._backends,
            sdk_timeout_s=settings.sdk_timeout_s,
            store=ClaimJournal(settings.data_dir / "claims", boot_id=boot_id),
            cdi=CdiFolder(settings.cdi_dir),
            api=self._cluster.api,
            claims_in_use=ask_for_pods,
            users=Users(containers=Containers(settings.host_root), pods_by_claim=ask_for_pods),
            telemetry=self._telemetry,
            clock=SystemClock(),
            broken_gpu_effect=settings.broken_gpu_effect,
        )
        state = NodeState(settings.node_name, boot_id=boot_id, owner=self._instance.name)
        return build_node(state, ground)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        """The kubelet may call; it is told so last, and that it is over once no call is under way."""
        service = DraService(self._node.claims, self._telemetry)

        def add_services(server: Server) -> None:
            service.add_to(server)
            HealthService(self._board).add_to(server)

        remove_predecessors(
            self._settings.data_dir, self._settings.registry_dir, driver=DRIVER_NAME
        )
        async with serving(self._sockets.service, add_services, grace_s=HANG_UP_S):
            try:
                async with serving(self._sockets.registration, self._registration.add_to):
                    try:
                        yield
                    finally:
                        await self._finish_calls(service)
            finally:
                self._board.close()

    def _lead_on(self) -> None:
        """The kubelet knows this process: older ones leave to it what only one does. A kubelet that starts wipes all slices."""
        self._instance.announce()
        if self._duties is not None:
            self._duties.trigger()

    async def _work(self) -> None:
        """Everything that is not a call of the kubelet."""
        async with self._cluster.connected() as api, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._cluster.write_events())
            tasks.create_task(self._serve_pages())
            await self._node.survey.look()
            self._health.refresh()
            settle_memory()
            tasks.create_task(self._node.recovery.run())
            tasks.create_task(self._look_again(tasks))
            tasks.create_task(self._measure())
            self._duties = Duties(self._instance, self._node, api, self._telemetry, self._policy())
            tasks.create_task(self._duties.run())

    async def _serve_pages(self) -> None:
        from kubelet_plugin.pages import ProcessPages  # noqa: PLC0415 (an HTTP server takes memory and time)

        pages = ProcessPages(self._metrics, self._registration, self._is_published)
        async with pages.served(self._settings.metrics_address):
            await asyncio.Event().wait()

    async def _look_again(self, tasks: asyncio.TaskGroup) -> None:
        """Round after round, whether or not a GPU leaves an earlier one without an answer."""
        clock = SystemClock()
        for number in count(1):
            await beat(clock, PING_S)
            tasks.create_task(self._look_once(whole=number % PINGS_PER_LOOK == 0))

    async def _look_once(self, *, whole: bool) -> None:
        survey = self._node.survey
        await (survey.look() if whole else survey.ping())
        self._health.refresh(survey.pending)

    async def _measure(self) -> None:
        interval_s = self._settings.activity_interval_s
        if interval_s:
            await self._node.activity.run(interval_s, SystemClock(), self._instance.leads)

    def _policy(self) -> PublishPolicy:
        choice = self._settings.publish_mode
        return PublishPolicy(
            mode=None if choice == "auto" else PublishMode(choice),
            devices_per_gpu=self._settings.devices_per_gpu,
            pools=frozenset(self._backends),
            ignores_rivals=self._settings.coexistence == "ignore",
        )

    def _is_published(self) -> bool:
        return self._duties is not None and self._duties.published

    def _levels(self) -> Levels:
        duties = self._duties
        published = Counter(dict.fromkeys(self._backends, 0))
        if duties is not None:
            published.update(duties.devices)
        damaged = self._node.recovery.damaged
        found = levels(self._node.state, self._board, published, damaged=damaged)
        return replace(found, devices=device_readings(self._node.state, self._node.activity))

    async def _finish_calls(self, service: DraService) -> None:
        """Work that nobody waits for any more may finish; what does not in time is undone by the next process."""
        timeout_s = self._settings.stop_timeout_s
        log.info("stopping; calls under way may finish", timeout_s=timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                await service.finish_calls()
        except TimeoutError:
            log.warning("stopping with calls under way; the next start undoes what they began")


def settle_memory() -> None:
    """What is there after the start stays, and hardly anything becomes garbage later: so looks for it are short."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    gc.enable()


def _endpoint(settings: PluginSettings) -> Endpoint:
    return find_endpoint(
        Access(
            server=settings.server,
            token_file=settings.token_file,
            ca_file=settings.ca_file,
            kubeconfig=settings.kubeconfig,
        )
    )
