"""A node's plugin without its process: simulated hardware, real journal, real CDI folder, an API that counts."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import pytest

from dra_driver.cdi.folder import CdiFolder
from dra_driver.config.machine import Machine
from dra_driver.journal.store import ClaimJournal
from dra_driver.kube.codec import allocated_claim_from_json
from dra_driver.model.claim import AllocatedClaim, ClaimRef
from dra_driver.model.errors import NotFound, Unavailable
from dra_driver.model.inventory import Inventory
from dra_driver.model.kinds import Kind
from dra_driver.model.names import DRIVER_NAME
from dra_driver.observe.containers import Container
from dra_driver.ports import Backend, JsonObject, KubeApi, Recorder
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from kubelet_plugin.activity import Users
from kubelet_plugin.claims import Claims
from kubelet_plugin.instances import Instance
from kubelet_plugin.metrics import Levels, PluginMetrics
from kubelet_plugin.node import Ground, Node, build_node
from kubelet_plugin.state import NodeState
from kubelet_plugin.telemetry import Telemetry

NODE = "n"
POOL = "n/nvidia"
BOOT = "11111111-2222-3333-4444-555555555555"

NewClaim: TypeAlias = Callable[..., JsonObject]


@dataclass
class CountingApi:
    """An API server with nothing but claims, which counts its GETs and can be down."""

    claims: dict[str, JsonObject] = field(default_factory=dict)
    gets: int = 0
    down: bool = False
    unavailable: bool = False

    async def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> JsonObject:
        self.gets += 1
        assert not self.down, "the API server was asked while it is down"
        if self.unavailable:
            raise Unavailable("the API server does not answer")
        if name not in self.claims:
            raise NotFound(f"{kind.kind} {namespace}/{name} not found", status=404)
        return self.claims[name]


def ref(claim: JsonObject) -> ClaimRef:
    """How the kubelet names the claim."""
    metadata = claim["metadata"]
    return ClaimRef(namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"])


class Solo:
    """An instance that no other process is beside."""

    name = "test"

    def alone(self) -> bool:
        return True

    def peace(self) -> int:
        return 1


@dataclass
class SetClock:
    """Its time is what a test says; its sleep is real."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Recorded:
    """The reasons of all Events."""

    reasons: list[str] = field(default_factory=list)

    def event(
        self,
        regarding: JsonObject,
        *,
        level: Literal["Normal", "Warning"],
        reason: str,
        message: str,
    ) -> None:
        self.reasons.append(reason)


def telemetry_of(recorder: Recorder) -> Telemetry:
    """Metrics that nobody scrapes, and Events for that recorder."""
    return Telemetry(PluginMetrics(version="0", levels=Levels), recorder, node=NODE)


class KnownContainers(dict[int, Container]):
    """The containers of the host's processes, all of which are seen."""

    are_seen = True

    def of(self, pid: int) -> Container | None:
        """See Processes."""
        return self.get(pid)


class NodePlugin:
    """Everything between the gRPC service and the hardware, over one folder. Build another one to restart it."""

    boot_id = BOOT

    def __init__(
        self,
        folder: Path,
        machine: Machine,
        api: CountingApi,
        *,
        timeout_s: float = 10.0,
        splits: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.syncs = 0
        self.good_syncs: int | None = None
        self.disk_is_awake = threading.Event()
        self.disk_is_awake.set()
        self.api = api
        self.containers = KnownContainers()
        self.pods: dict[tuple[str, str], frozenset[str]] = {}
        self.pod_questions = 0
        self.in_use: set[tuple[str, str]] = set()
        self.instance = cast("Instance", Solo())
        self.nvml = SimulatedNvml(machine, node=NODE, state_dir=folder / "hardware")
        self.backends: dict[str, Backend] = {POOL: NvidiaBackend(self.nvml, splits=splits)}
        self.cdi = CdiFolder(folder / "cdi")
        self.store = ClaimJournal(folder / "claims", boot_id=self.boot_id, sync=self._sync)
        self.events = Recorded()
        self.clock = SetClock()
        self.telemetry = telemetry_of(self.events)
        self._timeout_s = timeout_s

    @property
    def backend(self) -> Backend:
        """The NVIDIA GPUs'."""
        return self.backends[POOL]

    @property
    def claims(self) -> Claims:
        """What the service calls."""
        return self.node.claims

    @property
    def state(self) -> NodeState:
        """What the plugin knows."""
        return self.node.state

    def build(self) -> Node:
        """The parts, before anything was looked at."""

        async def api() -> KubeApi:
            return cast("KubeApi", self.api)

        async def in_use() -> set[tuple[str, str]]:
            return self.in_use

        async def pods() -> Mapping[tuple[str, str], frozenset[str]]:
            self.pod_questions += 1
            return self.pods

        ground = Ground(
            instance=self.instance,
            lock_file=self.folder / "locks",
            backends=self.backends,
            sdk_timeout_s=self._timeout_s,
            store=self.store,
            cdi=self.cdi,
            api=api,
            claims_in_use=in_use,
            users=Users(containers=self.containers, pods_by_claim=pods),
            telemetry=self.telemetry,
            clock=self.clock,
        )
        return build_node(NodeState(NODE, boot_id=self.boot_id, owner="test"), ground)

    async def start(self) -> NodePlugin:
        """What the process does by itself after a start."""
        self.node = self.build()
        self.node.recovery.restore()
        await self.node.survey.look()
        await self.node.recovery.run()
        return self

    async def prepare(self, claim: JsonObject, *, deadline: float | None = None) -> list[str]:
        """Prepare, as the kubelet would; the CDI ids."""
        devices = await self.claims.prepare(ref(claim), deadline=deadline)
        return [cdi_id for device in devices for cdi_id in device.cdi_ids]

    async def unprepare(self, claim: JsonObject) -> None:
        """Unprepare, as the kubelet would; somebody else may use the claim then."""
        await self.claims.unprepare(ref(claim))
        claim["metadata"]["resourceVersion"] += "0"

    def inventory(self) -> Inventory:
        """What is on the hardware now."""
        return discover(self.backend)

    def instances(self) -> list[tuple[str, int, bool]]:
        """Profile, start and completeness of all that exist."""
        return [
            (instance.profile, instance.placement.start, instance.complete)
            for gpu in self.inventory().gpus
            for instance in gpu.instances
        ]

    def leftovers(self) -> list[str]:
        """Everything that claims have left anywhere."""
        files = [*(self.folder / "cdi").glob("*"), *(self.folder / "claims").glob("*/*")]
        return [str(file) for file in files] + [str(instance) for instance in self.instances()]

    def _sync(self, descriptor: int) -> None:
        """Count; after as many as are `good` the disk fails. One that is not awake lets everybody wait."""
        assert self.disk_is_awake.wait(timeout=30)
        if self.syncs == self.good_syncs:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.syncs += 1
        os.fdatasync(descriptor)


def machine_of(model: str, count: int = 2, **spec: Any) -> Machine:
    """A machine with some equal NVIDIA GPUs."""
    gpus = [{"vendor": "nvidia", "model": model, "count": count} | spec]
    header = {"apiVersion": "gpu.dra-driver.dev/v1alpha1", "kind": "Machine", "name": "test"}
    return Machine.model_validate(header | {"gpus": gpus})


@pytest.fixture
def machine() -> Machine:
    """Two H100s."""
    return machine_of("H100-SXM5-80GB")


@pytest.fixture
def api() -> CountingApi:
    """An API server with no claims yet."""
    return CountingApi()


@pytest.fixture
async def node(tmp_path: Path, machine: Machine, api: CountingApi) -> NodePlugin:
    """A started plugin."""
    return await NodePlugin(tmp_path, machine, api).start()


def _result(device: str | tuple[str, str] | JsonObject) -> JsonObject:
    if isinstance(device, dict):
        return device
    request, name = ("r", device) if isinstance(device, str) else device
    return {"request": request, "driver": DRIVER_NAME, "pool": POOL, "device": name}


@pytest.fixture
def new_claim(api: CountingApi) -> NewClaim:
    """Makes allocated claims, known to the API; devices are named, or (request, device) pairs, or whole results."""
    numbers = itertools.count(1)

    def make(
        *devices: str | tuple[str, str] | JsonObject, config: Iterable[JsonObject] = ()
    ) -> JsonObject:
        number = next(numbers)
        results = [_result(device) for device in devices]
        claim = {
            "metadata": {
                "namespace": "default",
                "name": f"claim-{number}",
                "uid": f"00000000-0000-0000-0000-{number:012d}",
                "resourceVersion": str(number),
            },
            "spec": {"devices": {}},
            "status": {"allocation": {"devices": {"results": results, "config": list(config)}}},
        }
        api.claims[f"claim-{number}"] = claim
        return claim

    return make


@pytest.fixture
def decode() -> Callable[[JsonObject], AllocatedClaim]:
    """The claim as the planner sees it."""
    return allocated_claim_from_json
