"""The main job, told as it happens: published, allocated, prepared, seen by containers, released, and nothing left."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path

from dra_driver.cdi.folder import CdiFolder
from dra_driver.config.machine import load_machine
from dra_driver.kube.codec import claim_from_json, slice_from_json
from dra_driver.model.device import Vendor
from dra_driver.model.errors import DraError
from dra_driver.model.kinds import POD, RESOURCE_CLAIM, RESOURCE_SLICE
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import JsonObject
from dra_driver.rules.usage import DeviceUse, device_uses
from dra_driver.sandbox.cluster import Cluster, SandboxNode
from dra_driver.sandbox.manifests import Manifest, create, delete
from dra_driver.sandbox.partition_map import draw_map
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml

PATIENCE_S = 30.0
_LOOK_S = 0.02


class DemoFailed(DraError):
    """Something that the demo promises did not happen."""

    reason = "DemoFailed"


class Demo:
    """Tells the story of some manifests in a running cluster, line by line, through `say`."""

    def __init__(
        self, cluster: Cluster, manifests: Sequence[Manifest], say: Callable[[str], None]
    ) -> None:
        self._cluster = cluster
        self._api = cluster.api
        self._cdi_folders = [CdiFolder(node.cdi_dir) for node in cluster.nodes]
        self._manifests = manifests
        self._say = say
        self._began = time.monotonic()
        self._told: set[str] = set()

    async def tell(self) -> None:
        """All of it. Raises DemoFailed, naming what is missing, where a step takes too long."""
        await self._until("the plugins to publish their slices", self._published)
        self._chapter("What the nodes offer")
        await self._tell_offers()
        self._chapter("Applying the manifests")
        for manifest in self._manifests:
            await create(self._api, manifest)
            self._tell(f"created   {manifest}  ({manifest.file})")
        await self._until("every pod to run or to say why not", self._settled)
        self._chapter("What the containers see")
        for line in await self._views():
            self._say(line)
        self._chapter("The GPUs, one cell per memory slice")
        for line in draw_map(await self._uses()):
            self._say(line)
        self._chapter("Deleting it all")
        for manifest in self._manifests:
            await delete(self._api, manifest)
        await self._until("everything to be released", self._released)
        self._tell("nothing left: " + ", ".join(f"0 {what}" for what in await self._leftovers()))

    def _chapter(self, title: str) -> None:
        self._say(f"\n{title}")

    def _tell(self, line: str) -> None:
        """Once, with the time."""
        if line not in self._told:
            self._told.add(line)
            self._say(f"  {time.monotonic() - self._began:5.2f} s  {line}")

    async def _until(self, what: str, reached: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not await reached():
            if time.monotonic() > deadline:
                words = "; ".join(f"{n.spec.name}: {n.last_word()}" for n in self._cluster.nodes)
                raise DemoFailed(
                    f"waited {PATIENCE_S:g} s for {what}; the plugins' last words: {words}"
                )
            await asyncio.sleep(_LOOK_S)

    async def _published(self) -> bool:
        """Whether each node has a complete pool."""
        slices = [slice_from_json(item) for item in (await self._api.list(RESOURCE_SLICE)).items]
        for node in self._cluster.nodes:
            ours = [item for item in slices if item.place.node_name == node.spec.name]
            if not ours or len(ours) < ours[0].pool.slice_count:
                return False
            devices = sum(len(item.devices) for item in ours)
            self._tell(f"published {ours[0].pool.name}: {devices} devices in {len(ours)} slices")
        return True

    async def _tell_offers(self) -> None:
        uses = await self._uses()
        for node in self._cluster.nodes:
            here = [use.device.attributes for use in uses if use.node == node.spec.name]
            products = ", ".join(sorted({str(device["productName"]) for device in here}))
            profiles = sorted({str(device["profile"]) for device in here} - {""})
            gpus = len({device["parent"] for device in here})
            forms = f"; partitions {', '.join(profiles)}" if profiles else ""
            self._say(f"  {node.spec.name}: {gpus} x {products}{forms}")

    async def _settled(self) -> bool:
        """Whether every pod runs, or has said why it cannot; tells each step on the way."""
        prepared = {uid for folder in self._cdi_folders for uid in folder.claims()}
        for item in (await self._api.list(RESOURCE_CLAIM)).items:
            claim = claim_from_json(item)
            if claim.allocation is not None:
                given = ", ".join(f"{r.request}={r.device}" for r in claim.allocation.results)
                self._tell(f"allocated {claim.ref}: {given}")
            if claim.ref.uid in prepared:
                self._tell(f"prepared  {claim.ref}: its CDI spec is on disk")
        settled = [self._tell_pod(pod) for pod in (await self._api.list(POD)).items]
        return all(settled)

    def _tell_pod(self, pod: JsonObject) -> bool:
        name, status = pod["metadata"]["name"], pod.get("status", {})
        if status.get("phase") == "Running":
            self._tell(f"running   pod {name} on {pod['spec']['nodeName']}")
            return True
        for condition in status.get("conditions", []):
            if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
                waits = "resource claims to be created" in condition["message"]
                if not waits:
                    self._tell(f"pending   pod {name}: {condition['message']}")
                return not waits
        return False

    async def _views(self) -> list[str]:
        files = sorted(
            file for node in self._cluster.nodes for file in node.pods_dir.glob("*.json")
        )
        return [line for file in files for line in _view_lines(json.loads(file.read_text()))]

    async def _uses(self) -> tuple[DeviceUse, ...]:
        slices = [slice_from_json(item) for item in (await self._api.list(RESOURCE_SLICE)).items]
        claims = [claim_from_json(item) for item in (await self._api.list(RESOURCE_CLAIM)).items]
        return device_uses(DRIVER_NAME, slices, claims)

    async def _released(self) -> bool:
        return not any((await self._leftovers()).values())

    async def _leftovers(self) -> dict[str, int]:
        """What there must be none of in the end, counted where it would lie."""
        nodes = self._cluster.nodes
        return {
            "pods": len((await self._api.list(POD)).items),
            "claims": len((await self._api.list(RESOURCE_CLAIM)).items),
            "CDI files": _count(node.cdi_dir.iterdir() for node in nodes),
            "journal records": _count((node.data_dir / "claims").glob("*/*") for node in nodes),
            "GPU instances": sum(_instances(node) for node in nodes),
        }


def _view_lines(view: JsonObject) -> Iterator[str]:
    for container in view["containers"]:
        yield f"  {view['name']}/{container['name']}"
        yield from (f"    cdi   {device}" for device in container["cdiDevices"])
        yield from (f"    env   {name}={value}" for name, value in container["env"].items())
        yield f"    nodes {' '.join(node['path'] for node in container['deviceNodes'])}"


def _count(groups: Iterable[Iterable[Path]]) -> int:
    return sum(1 for group in groups for _ in group)


def _instances(node: SandboxNode) -> int:
    """Counted by asking the simulated hardware, not the plugin."""
    machine = load_machine(node.spec.machine)
    if Vendor.NVIDIA not in {gpu.vendor for gpu in machine.gpus}:
        return 0
    nvml = SimulatedNvml(
        machine, node=node.spec.name, state_dir=node.simulation_dir / Vendor.NVIDIA
    )
    return sum(len(gpu.instances) for gpu in discover(NvidiaBackend(nvml)).gpus)
