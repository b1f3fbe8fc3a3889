"""A whole cluster without a cluster: API server, controllers, scheduler and kubelets here, our plugins as programs of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dra_driver.kube.events import EventRecorder, EventSource
from dra_driver.model.errors import StartError, root_cause
from dra_driver.model.kinds import DEVICE_CLASS
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import JsonObject, KubeApi
from dra_driver.sandbox.apiserver.gates import Gates
from dra_driver.sandbox.apiserver.local import LocalApi
from dra_driver.sandbox.apiserver.server import ApiServer
from dra_driver.sandbox.claims import ClaimController
from dra_driver.sandbox.eviction import TaintEviction
from dra_driver.sandbox.kubelet.kubelet import Kubelet
from dra_driver.sandbox.placement import placing
from dra_driver.sandbox.scheduler import Scheduler
from dra_driver.wire.socket_files import PATH_LIMIT_BYTES

STOP_S = 10.0
_PLUGIN = (
    "import runpy; from dra_driver.sandbox.orphans import end_with_parent; end_with_parent({parent});"
    "runpy.run_module('kubelet_plugin', run_name='__main__')"
)
"""What `python -m kubelet_plugin` does, in a process that the kernel ends with the sandbox's, even where that is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """A node and the machine profile of its simulated hardware."""

    name: str
    machine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxNode:
    """Where a node's files are. Everything the kubelet and the plugin write is below `root`."""

    spec: NodeSpec
    root: Path

    @property
    def pod_resources_socket(self) -> Path:
        """At which the kubelet says which claims its pods use."""
        return self.root / "pod-resources" / "kubelet.sock"

    @property
    def registry_dir(self) -> Path:
        """The kubelet's folder for registration sockets."""
        return self.root / "plugins_registry"

    @property
    def data_dir(self) -> Path:
        """The plugin's own folder."""
        return self.root / "plugins" / DRIVER_NAME

    @property
    def cdi_dir(self) -> Path:
        """CDI specs."""
        return self.root / "cdi"

    @property
    def simulation_dir(self) -> Path:
        """The simulated hardware."""
        return self.root / "hardware"

    @property
    def pods_dir(self) -> Path:
        """What each container of a running pod sees."""
        return self.root / "pods"

    @property
    def plugin_log(self) -> Path:
        """What the plugin prints."""
        return self.root / "plugin.log"

    def last_word(self) -> str:
        """The last line that the plugin has printed."""
        lines = self.plugin_log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A running sandbox."""

    server: str
    api: KubeApi
    nodes: tuple[SandboxNode, ...]


@asynccontextmanager
async def running_cluster(
    root: Path,
    specs: Sequence[NodeSpec],
    classes: Sequence[JsonObject],
    *,
    gates: Gates | None = None,
    port: int = 0,
) -> AsyncIterator[Cluster]:
    """The cluster runs while the block does, with its files below `root`; afterwards no process is left. Raises StartError.

    A part that fails ends the whole sandbox: nothing is worse than a cluster that is only half there.
    """
    nodes = tuple(SandboxNode(spec=spec, root=root / spec.name) for spec in specs)
    for node in nodes:
        _check_length(node)
    gates = gates or Gates()
    apiserver = ApiServer(gates=gates)
    server = await apiserver.start(port=port)
    try:
        api = LocalApi(apiserver.store, gates=gates)
        for document in classes:
            await api.create(DEVICE_CLASS, document)
        async with placing() as place, asyncio.TaskGroup() as tasks:
            recorder = EventRecorder(api, EventSource(component="default-scheduler", host=""))
            scheduler = Scheduler(api, place, api.bind, recorder)
            kubelets = [Kubelet(api, node.spec.name, node.root, [node.cdi_dir]) for node in nodes]
            parts = [
                recorder.run,
                ClaimController(api).run,
                TaintEviction(api).run,
                scheduler.run,
                *(k.run for k in kubelets),
            ]
            background = [tasks.create_task(run()) for run in parts]
            async with AsyncExitStack() as stack:
                for node in nodes:
                    await stack.enter_async_context(_running_plugin(node, server))
                yield Cluster(server=server, api=api, nodes=nodes)
            for task in background:
                task.cancel()
    except BaseExceptionGroup as group:
        raise root_cause(group) from group
    finally:
        await apiserver.stop()


def _check_length(node: SandboxNode) -> None:
    longest = node.registry_dir / f"{DRIVER_NAME}-reg.sock"
    if len(bytes(longest)) > PATH_LIMIT_BYTES:
        raise StartError(
            f"sandbox folder {node.root.parent} is too long for unix sockets ({longest} has {len(bytes(longest))} bytes, "
            f"{PATH_LIMIT_BYTES} are allowed); name a shorter one with --dir"
        )


@asynccontextmanager
async def _running_plugin(node: SandboxNode, server: str) -> AsyncIterator[None]:
    """Our real plugin for the node, as a process in a session of its own, so that Ctrl-C reaches it in order."""
    node.registry_dir.mkdir(parents=True, exist_ok=True)
    settings = {
        "node-name": node.spec.name,
        "server": server,
        "data-dir": node.data_dir,
        "registry-dir": node.registry_dir,
        "pod-resources-socket": node.pod_resources_socket,
        "cdi-dir": node.cdi_dir,
        "machine": node.spec.machine,
        "simulation-dir": node.simulation_dir,
    }
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    with node.plugin_log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _PLUGIN.format(parent=os.getpid()),
            "run",
            *flags,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        await _wait_for_socket(node, process)
        yield
    finally:
        await _stop(process)


async def _wait_for_socket(node: SandboxNode, process: asyncio.subprocess.Process) -> None:
    socket = node.registry_dir / f"{DRIVER_NAME}-reg.sock"
    while not socket.exists():
        if process.returncode is not None:
            raise StartError(f"the plugin of node {node.spec.name} ended: {node.last_word()}")
        await asyncio.sleep(0.02)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
