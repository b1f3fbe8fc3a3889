"""A simulated node whose plugin may be killed at any moment, driven over its socket as a kubelet would."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import grpc
import grpc.aio

from dra_driver.config.layers import resolve
from dra_driver.config.machine import Machine, load_machine
from dra_driver.config.settings import PluginSettings
from dra_driver.model.kinds import RESOURCE_CLAIM, RESOURCE_SLICE
from dra_driver.ports import Backend, JsonObject
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.wire.dra_v1 import api_pb2, api_pb2_grpc
from kubelet_plugin.hardware import open_backends
from tests.faults.cluster import Cluster
from tests.faults.forks import ForkedProcess, Forks
from tests.faults.invariants import Violation, violations
from tests.faults.ledger import Ledger, Told
from tests.faults.outside import look

_SETTLE_S = 10.0
_CALL_S = 30.0
_CONNECT_S = 0.005
_LOOK_S = 0.02


class Node:
    """Folders, hardware and the present process of one node, and the ledger of what its plugins have said.

    `disk` is where records and CDI files are, the node's folder unless it says otherwise.
    """

    def __init__(
        self,
        folder: Path,
        machine: str,
        cluster: Cluster,
        forks: Forks,
        *,
        disk: Path | None = None,
    ) -> None:
        self.node = cluster.node
        self.folder = folder
        self.data_dir, self.cdi_dir = (disk or folder) / "data", (disk or folder) / "cdi"
        self.hardware_dir = folder / "hardware/nvidia"
        (folder / "registry").mkdir()
        self.machine: Machine = load_machine(machine)
        self.backend: Backend = NvidiaBackend(
            SimulatedNvml(self.machine, node=self.node, state_dir=self.hardware_dir)
        )
        self.ledger = Ledger()
        self.ledger.foreign = tuple(
            (address, instance)
            for address in self.backend.addresses()
            for instance in self.backend.read(address).instances
        )
        self.process: ForkedProcess | None = None
        self._cluster, self._forks = cluster, forks
        self._flags = {
            "node-name": self.node,
            "server": cluster.server.url,
            "data-dir": str(self.data_dir),
            "registry-dir": str(folder / "registry"),
            "cdi-dir": str(self.cdi_dir),
            "simulation-dir": str(folder / "hardware"),
            "machine": machine,
            "log-format": "text",
        }

    def offer_passthrough(self) -> None:
        """Its GPUs are behind an IOMMU, and virtual machines may have them. To be called before the first start."""
        self._flags["passthrough"] = "offer"
        flags = {name.replace("-", "_"): value for name, value in self._flags.items()}
        settings = resolve(PluginSettings, file=None, environment={}, flags=flags).settings
        (self.backend,) = open_backends(settings).values()

    @property
    def log(self) -> Path:
        """What its processes have printed."""
        return self.folder / "log"

    @property
    def alive(self) -> bool:
        """Whether a process serves the node, as far as is known."""
        return self.process is not None and self.process.returncode is None

    async def launch(self, environment: Mapping[str, str] | None = None) -> ForkedProcess:
        """Start a plugin, and do not wait for anything."""
        flags = [text for name, value in self._flags.items() for text in (f"--{name}", value)]
        self.process = await self._forks.start(["run", *flags], self.log, environment)
        return self.process

    async def start(self, environment: Mapping[str, str] | None = None) -> bool:
        """Start a plugin; whether it lived until it could be called."""
        process = await self.launch(environment)
        async with asyncio.timeout(_SETTLE_S):
            while process.returncode is None:
                if _serves(self.data_dir / "dra.sock"):
                    return True
                await asyncio.sleep(_CONNECT_S)
        return False

    async def dies(self) -> int:
        """Wait for the process's end; its exit status."""
        assert self.process is not None
        async with asyncio.timeout(_SETTLE_S):
            return await self.process.wait()

    async def kill(self) -> None:
        """SIGKILL, and wait."""
        if self.process is not None and self.alive:
            self.process.send_signal(signal.SIGKILL)
            await self.dies()

    async def stop(self) -> None:
        """SIGTERM, and wait."""
        if self.process is not None and self.alive:
            self.process.send_signal(signal.SIGTERM)
            assert await self.dies() == 0, self.log.read_text()[-4000:]

    async def prepare(self, claim: JsonObject) -> str:
        """NodePrepareResources: the error, empty for a success. ConnectionError where no answer came."""
        uid = claim["metadata"]["uid"]
        self.ledger.asked_to_prepare(uid)
        request = api_pb2.NodePrepareResourcesRequest(claims=[_message(claim)])
        async with self._stub() as stub:
            answer = (await stub.NodePrepareResources(request, timeout=_CALL_S)).claims[uid]
        if answer.error:
            self.ledger.refuses(uid, answer.error)
        else:
            told = [
                Told(d.pool_name, d.device_name, tuple(d.cdi_device_ids)) for d in answer.devices
            ]
            self.ledger.prepared(uid, told)
        return answer.error

    async def unprepare(self, claim: JsonObject) -> str:
        """NodeUnprepareResources: the error, empty for a success. ConnectionError where no answer came."""
        uid = claim["metadata"]["uid"]
        self.ledger.asked_to_unprepare(uid)
        request = api_pb2.NodeUnprepareResourcesRequest(claims=[_message(claim)])
        async with self._stub() as stub:
            answer = (await stub.NodeUnprepareResources(request, timeout=_CALL_S)).claims[uid]
        if answer.error:
            self.ledger.refuses(uid, answer.error)
        else:
            self.ledger.unprepared(uid)
        return answer.error

    async def wrongs(self, *, settled: bool) -> list[Violation]:
        """What is wrong now. Nothing may be under way."""
        api = self._cluster.api
        claims = (await api.list(RESOURCE_CLAIM)).items
        slices = (await api.list(RESOURCE_SLICE)).items if settled else None
        outside = look(self, claims=claims, slices=slices)
        wrongs = violations(outside, self.ledger, settled=settled)
        self.ledger.remember(outside)
        return wrongs

    async def settles(self) -> list[Violation]:
        """Wait until nothing is wrong and no work is half done; what is still wrong when it takes too long."""
        wrongs: list[Violation] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                while True:
                    wrongs = await self.wrongs(settled=True)
                    if not wrongs:
                        break
                    await asyncio.sleep(_LOOK_S)
        return wrongs

    @asynccontextmanager
    async def _stub(self) -> AsyncIterator[api_pb2_grpc.DRAPluginAsyncStub]:
        """A connection of its own: one that broke with a killed process would be waited for, and shared with the next."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"unix:{self.data_dir / 'dra.sock'}", options) as one:
            try:
                yield api_pb2_grpc.DRAPluginStub(one)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                raise ConnectionError(str(error.details())) from error


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a name short enough for sockets, for the block."""
    path = Path(tempfile.mkdtemp(prefix="dra-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _serves(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def _message(claim: JsonObject) -> api_pb2.Claim:
    metadata = claim["metadata"]
    return api_pb2.Claim(
        namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"]
    )
