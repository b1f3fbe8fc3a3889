"""The plugin as a process, beside a real API server emulator, driven over its sockets as a kubelet would."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest

from dra_driver.config.machine import load_machine
from dra_driver.model.kinds import NODE, RESOURCE_CLAIM, RESOURCE_SLICE
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.gates import Gates
from dra_driver.sandbox.apiserver.local import LocalApi
from dra_driver.sandbox.apiserver.server import ApiServer
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.wire.dra_v1 import api_pb2, api_pb2_grpc
from kubelet_plugin.sockets import plugin_sockets

NODE_NAME = "n"
QUIET_S = 1.0
"""Five times what a publisher waits before it looks again."""
QUIET_LOOKS = 20
"""In that time; a machine that stalls meanwhile takes one of them, and not all."""


async def eventually(
    reached: Callable[[], Awaitable[bool] | bool], *, within_s: float = 10.0
) -> None:
    """Returns as soon as it is so; fails when it never is."""
    async with asyncio.timeout(within_s):
        while True:
            answer = reached()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.02)


class Plugin:
    """One plugin's folders, and the process that serves them now; with `pod_uid` it is one of several that share them."""

    def __init__(
        self, folder: Path, server: str, machine: str, *, pod_uid: str | None = None
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.registry_dir = folder / "registry"
        self.cdi_dir = folder / "cdi"
        self.settings = {
            "node-name": NODE_NAME,
            "server": server,
            "data-dir": str(self.data_dir),
            "registry-dir": str(self.registry_dir),
            "cdi-dir": str(self.cdi_dir),
            "simulation-dir": str(folder / "hardware"),
            "machine": machine,
            "log-format": "text",
        }
        if pod_uid is not None:
            self.settings["pod-uid"] = pod_uid
        self.registry_dir.mkdir(exist_ok=True)
        self._log = folder / f"log{pod_uid or ''}"
        self.process: asyncio.subprocess.Process | None = None

    @property
    def sockets(self) -> tuple[Path, Path]:
        """Of registration and of the DRA service."""
        uid = self.settings.get("pod-uid")
        paths = plugin_sockets(self.data_dir, self.registry_dir, driver=DRIVER_NAME, pod_uid=uid)
        return paths.registration, paths.service

    @property
    def log(self) -> str:
        """Everything that the processes have printed."""
        return self._log.read_text() if self._log.exists() else ""

    async def launch(self, **changed: str) -> asyncio.subprocess.Process:
        """Start a process, whatever becomes of it."""
        settings = self.settings | {
            name.replace("_", "-"): value for name, value in changed.items()
        }
        flags = [text for name, value in settings.items() for text in (f"--{name}", value)]
        with self._log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", "kubelet_plugin", "run", *flags, stdout=output, stderr=output
            )

    async def start(self) -> None:
        """Start the plugin and wait until it serves."""
        for socket in self.sockets:
            assert not socket.exists() or self.process is not None
        before = self.log.count("serving")
        self.process = process = await self.launch()
        await eventually(
            lambda: self.log.count("serving") > before or process.returncode is not None
        )
        assert process.returncode is None, self.log

    async def stop(self, number: int = signal.SIGTERM, *, within_s: float = 10.0) -> int:
        """End it; its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        try:
            async with asyncio.timeout(within_s):
                return await self.process.wait()
        except TimeoutError:
            raise AssertionError(
                f"it does not end; its log ends with\n{self.log[-5000:]}"
            ) from None

    async def fails(self, **changed: str) -> str:
        """Start a plugin that must refuse to run; the one line that it says."""
        before = len(self.log)
        process = await self.launch(**changed)
        async with asyncio.timeout(10):
            assert await process.wait() == 1
        said = [line for line in self.log[before:].splitlines() if "error:" in line]
        assert len(said) == 1, self.log
        assert "Traceback" not in self.log
        return said[0]

    async def is_ready(self) -> bool:
        """What the pod's readiness probe would find; the process was launched with a `metrics_address`."""
        found = re.findall(r"metrics and probes are served.* port=(\d+)", self.log)
        if not found:
            return False
        url = f"http://127.0.0.1:{found[-1]}/readyz"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status == 200

    def records(self, uid: str = "*") -> list[Path]:
        """The journal's file of the claim, or of all."""
        return list((self.data_dir / "claims").glob(f"*/{uid}.jsonl"))

    def instances(self) -> list[str]:
        """The GPU instances that there are: asked of the hardware, not of the plugin."""
        nvml = SimulatedNvml(
            load_machine(self.settings["machine"]),
            node=NODE_NAME,
            state_dir=self.folder / "hardware" / "nvidia",
        )
        gpus = discover(NvidiaBackend(nvml)).gpus
        return [f"{gpu.pci_address}: {one.profile}" for gpu in gpus for one in gpu.instances]

    def leftovers(self) -> list[str]:
        """What there is of claims: CDI files, records, GPU instances."""
        return [*map(str, self.cdi_dir.iterdir()), *map(str, self.records()), *self.instances()]

    @asynccontextmanager
    async def _stub(self) -> AsyncIterator[api_pb2_grpc.DRAPluginAsyncStub]:
        # Its own connection: one that broke with a killed process would be waited for, and shared with the next.
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"unix:{self.sockets[1]}", options) as channel:
            yield api_pb2_grpc.DRAPluginStub(channel)

    async def prepare(self, *claims: JsonObject) -> Any:
        """NodePrepareResources; the answers by UID."""
        async with self._stub() as stub:
            request = api_pb2.NodePrepareResourcesRequest(claims=map(_message, claims))
            return (await stub.NodePrepareResources(request, timeout=45)).claims

    async def unprepare(self, *claims: JsonObject) -> Any:
        """NodeUnprepareResources; the answers by UID."""
        async with self._stub() as stub:
            request = api_pb2.NodeUnprepareResourcesRequest(claims=map(_message, claims))
            return (await stub.NodeUnprepareResources(request, timeout=45)).claims


def _message(claim: JsonObject) -> api_pb2.Claim:
    metadata = claim["metadata"]
    return api_pb2.Claim(
        namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"]
    )


class Cluster:
    """An API server with one node, and what tests ask of it."""

    def __init__(self, server: ApiServer, gates: Gates | None = None) -> None:
        self.server = server
        self.api = LocalApi(server.store, gates=gates)

    async def slices(self) -> list[JsonObject]:
        """All that is published."""
        return list((await self.api.list(RESOURCE_SLICE)).items)

    async def is_published(self) -> bool:
        """Whether every pool is complete."""
        slices = await self.slices()
        return bool(slices) and len(slices) == slices[0]["spec"]["pool"]["resourceSliceCount"]

    async def until_quiet(self, *plugins: Plugin) -> None:
        """These plugins answer, and nobody asks for anything any more: one that has published looks once more at what it wrote."""
        seen: Counter[tuple[str, str]] = Counter()
        quiet = 0
        async with asyncio.timeout(20):
            while quiet < QUIET_LOOKS:
                await asyncio.sleep(QUIET_S / QUIET_LOOKS)
                for plugin in plugins:
                    await plugin.unprepare()  # no claim: only a process that runs answers
                quiet = quiet + 1 if seen == self.server.requests else 0
                seen = Counter(self.server.requests)

    async def new_claim(self, *devices: str, config: tuple[JsonObject, ...] = ()) -> JsonObject:
        """An allocated claim."""
        request = {
            "name": "r",
            "exactly": {"deviceClassName": "any", "count": max(1, len(devices))},
        }
        spec: JsonObject = {"devices": {"requests": [request]}}
        body = {"metadata": {"generateName": "claim-"}, "spec": spec}
        claim = await self.api.create(RESOURCE_CLAIM, body, namespace="default")
        place = {"driver": DRIVER_NAME, "pool": f"{NODE_NAME}/nvidia", "request": "r"}
        allocation = {
            "results": [place | {"device": name} for name in devices],
            "config": list(config),
        }
        return await self.api.patch(
            RESOURCE_CLAIM,
            claim["metadata"]["name"],
            {"status": {"allocation": {"devices": allocation}}},
            namespace="default",
            subresource="status",
        )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, for sockets."""
    path = Path(tempfile.mkdtemp(prefix="dra-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def gates() -> Gates:
    """The API server's feature gates; a test may override this."""
    return Gates()


@pytest.fixture
def version() -> str:
    """The API server's version; a test may override this."""
    return "v1.37.1"


@pytest.fixture
async def cluster(gates: Gates, version: str) -> AsyncIterator[Cluster]:
    """A running API server with the node."""
    server = ApiServer(gates=gates, version=version)
    await server.start()
    cluster = Cluster(server, gates)
    await cluster.api.create(NODE, {"metadata": {"name": NODE_NAME}})
    yield cluster
    await server.stop()


@pytest.fixture
async def idle(folder: Path, cluster: Cluster) -> AsyncIterator[Plugin]:
    """A plugin that was not started yet; whatever it becomes, it is gone afterwards."""
    plugin = Plugin(folder, cluster.server.url, "8xh100-80")
    yield plugin
    if plugin.process is not None:
        await plugin.stop(signal.SIGKILL)


@pytest.fixture
async def plugin(idle: Plugin, cluster: Cluster) -> Plugin:
    """A plugin that serves and has published."""
    await idle.start()
    await eventually(cluster.is_published)
    return idle
