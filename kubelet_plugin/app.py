"""The plugin process: everything is put together here, then served until SIGTERM.

Order matters. State is loaded and half-done work undone before the first socket opens, as the kubelet may call at once; the
sockets open before the API server's client is imported, as replays and unprepares need neither; slices come last.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack

import structlog
from grpc.aio import Server

from dra_driver.cdi.folder import CdiFolder
from dra_driver.config.settings import PluginSettings
from dra_driver.journal.store import ClaimJournal, read_boot_id
from dra_driver.kube.credentials import Access, find_endpoint
from dra_driver.kube.endpoint import Endpoint
from dra_driver.model.errors import DraError, KubeError, VendorError, root_cause
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import Clock, KubeApi, SystemClock
from dra_driver.rules.publish import PublishMode
from dra_driver.wire.sockets import create_private_folder, serving
from kubelet_plugin.claims import Claims
from kubelet_plugin.executor import Executor
from kubelet_plugin.hardware import open_backends
from kubelet_plugin.health_service import HealthBoard, HealthService
from kubelet_plugin.instance import sole_instance
from kubelet_plugin.publisher import Publisher, PublishPolicy
from kubelet_plugin.recovery import recover
from kubelet_plugin.registration import Registration
from kubelet_plugin.service import DraService
from kubelet_plugin.sockets import plugin_sockets
from kubelet_plugin.state import NodeState
from kubelet_plugin.workers import Workers

log = structlog.get_logger(__name__)

REDISCOVER_S = 30.0
WITHDRAW_S = 8.0
"""With the default stopTimeoutS this stays below the 30 s that Kubernetes gives a pod."""


async def run(settings: PluginSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises DraError where the process cannot start."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    create_private_folder(settings.data_dir)
    with sole_instance(settings.data_dir, settings.node_name):
        try:
            await _serve(settings, stop)
        except* DraError as group:
            raise root_cause(group) from None


async def _serve(settings: PluginSettings, stop: asyncio.Event) -> None:
    endpoint = find_endpoint(
        Access(
            server=settings.server,
            token_file=settings.token_file,
            ca_file=settings.ca_file,
            kubeconfig=settings.kubeconfig,
        )
    )
    boot_id = read_boot_id()
    state = NodeState(settings.node_name, boot_id=boot_id, owner=str(os.getpid()))
    store = ClaimJournal(settings.data_dir / "claims", boot_id=boot_id)
    cdi = CdiFolder(settings.cdi_dir)
    backends = open_backends(settings)
    if not backends:
        log.warning("no GPU driver is loaded on this node, so there is nothing to publish")
    executor = Executor(state, backends, store, cdi, Workers(timeout_s=settings.sdk_timeout_s))
    complete = await _discover(executor)
    records, damages = await asyncio.to_thread(store.load)
    state.restore(records.values())
    await recover(state, executor, cdi, damages)

    policy = PublishPolicy(
        mode=None if settings.publish_mode == "auto" else PublishMode(settings.publish_mode),
        devices_per_gpu=settings.devices_per_gpu,
        pools=frozenset(backends),
    )
    api: asyncio.Future[KubeApi] = asyncio.get_running_loop().create_future()
    publishing: asyncio.Future[Publisher] = asyncio.get_running_loop().create_future()
    claims = Claims(state, executor, lambda: asyncio.shield(api), damages)
    sockets = plugin_sockets(
        settings.data_dir, settings.registry_dir, driver=DRIVER_NAME, pod_uid=settings.pod_uid
    )
    registration = Registration(driver=DRIVER_NAME, endpoint=sockets.service)
    service, board = DraService(claims), HealthBoard()

    def add_services(server: Server) -> None:
        service.add_to(server)
        HealthService(board).add_to(server)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            serving(sockets.service, add_services, grace_s=settings.stop_timeout_s)
        )
        stack.callback(board.close)
        await stack.enter_async_context(
            serving(sockets.registration, registration.add_to, grace_s=1.0)
        )
        log.info("serving", node=settings.node_name, socket=str(sockets.service))
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(_publish(endpoint, state, policy, api, publishing))]
            if not complete:
                background.append(tasks.create_task(_discover_again(executor, SystemClock())))
            await stop.wait()
            if publishing.done():
                await _withdraw_if_drained(publishing.result())
            for task in background:
                task.cancel()
        await _finish_calls(claims, settings.stop_timeout_s)


async def _finish_calls(claims: Claims, timeout_s: float) -> None:
    """Calls under way may finish; what does not finish in time is undone by the next process."""
    log.info("stopping; calls under way may finish", timeout_s=timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            await claims.finish_calls()
    except TimeoutError:
        log.warning("stopping with calls under way; the next start undoes what they began")


async def _withdraw_if_drained(publisher: Publisher) -> None:
    """Best effort: the kubelet wipes the slices of a plugin that is gone, half a minute later."""
    try:
        async with asyncio.timeout(WITHDRAW_S):
            await publisher.withdraw_if_drained()
    except (KubeError, TimeoutError) as error:
        log.warning("the slices of the drained node stay for now", error=str(error))


async def _publish(
    endpoint: Endpoint,
    state: NodeState,
    policy: PublishPolicy,
    api: asyncio.Future[KubeApi],
    publishing: asyncio.Future[Publisher],
) -> None:
    """Connect, tell those who wait for it, and keep the slices true."""
    from dra_driver.kube.events import EventRecorder, EventSource  # noqa: PLC0415 (see the module's docstring)
    from dra_driver.kube.rest import RestApi  # noqa: PLC0415
    from dra_driver.kube.watch import Cache, Scope  # noqa: PLC0415

    ours = {"fieldSelector": f"spec.nodeName={state.node},spec.driver={DRIVER_NAME}"}
    async with RestApi(endpoint, component="kubelet-plugin") as rest, asyncio.TaskGroup() as tasks:
        api.set_result(rest)
        recorder = EventRecorder(rest, EventSource(component=DRIVER_NAME, host=state.node))
        publisher = Publisher(rest, state, policy, recorder, SystemClock())
        publishing.set_result(publisher)
        scope = Scope(kind=RESOURCE_SLICE, selectors=ours)
        cache = Cache(rest, scope, on_change=lambda _: publisher.trigger())
        tasks.create_task(recorder.run())
        tasks.create_task(cache.run())
        tasks.create_task(publisher.run())


async def _discover(executor: Executor) -> bool:
    """Look at the hardware; False where a vendor's library failed, so that the others are served meanwhile."""
    try:
        await executor.rescan()
    except VendorError as error:
        log.warning("hardware cannot be looked at yet", error=str(error), wait_s=REDISCOVER_S)
        return False
    return True


async def _discover_again(executor: Executor, clock: Clock) -> None:
    await clock.sleep(REDISCOVER_S)
    while not await _discover(executor):
        await clock.sleep(REDISCOVER_S)
