"""Publishing against a scheduler that looks at any moment: what cannot be told apart is never allocated."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from dra_driver.config.machine import Machine
from dra_driver.kube.codec import claim_from_json
from dra_driver.model.inventory import Inventory
from dra_driver.model.kinds import DEVICE_CLASS, NODE, POD, RESOURCE_CLAIM
from dra_driver.model.slices import Device
from dra_driver.ports import JsonObject, KubeApi, SystemClock
from dra_driver.rules.devices import render_device
from dra_driver.rules.forms import all_forms
from dra_driver.sandbox.apiserver.gates import Gates
from dra_driver.sandbox.apiserver.local import LocalApi
from dra_driver.sandbox.apiserver.store import Store
from dra_driver.sandbox.placement import Placed, Question, Unplaced, place
from dra_driver.sandbox.scheduler import Scheduler
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from kubelet_plugin.publisher import Publisher
from kubelet_plugin.state import NodeState
from kubelet_plugin.targets import PublishPolicy
from tests.kubelet_plugin.conftest import telemetry_of

SEEDS = range(1000)
ALL_OFF = Gates(
    partitionable_devices=False,
    consumable_capacity=False,
    device_taints=False,
    binding_conditions=False,
    admin_access=False,
    prioritized_list=False,
)


class ByType:
    """A matcher whose selectors are simply the wanted `type`: CEL is not what is tested here."""

    def matches(self, expressions: Sequence[str], device: Device, driver: str) -> bool:
        return all(device.attributes["type"] == wanted for wanted in expressions)


class Silent:
    """Drops Events."""

    def event(self, regarding: JsonObject, *, level: str, reason: str, message: str) -> None:
        pass


def jittered(api: KubeApi, rng: random.Random) -> KubeApi:
    """The API, with somebody else's turn perhaps before each call: a random interleaving, at the grain of API calls."""

    class Jittered:
        def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
            async def call(*args: Any, **kwargs: Any) -> Any:
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
                return await getattr(api, name)(*args, **kwargs)

            return call

    return cast("KubeApi", Jittered())


class LyingProbe(LocalApi):
    """Dry runs are answered by an API server that keeps all fields, writes by one that does not: a half-done upgrade."""

    async def create(
        self, kind: Any, body: JsonObject, *, namespace: str | None = None, dry_run: bool = False
    ) -> JsonObject:
        if dry_run:
            return body
        return await super().create(kind, body, namespace=namespace)


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    """Two H100s with the two profiles that overlap most; fewer devices make a thousand rounds quick."""
    machine = Machine.model_validate(
        {
            "apiVersion": "gpu.dra-driver.dev/v1alpha1",
            "kind": "Machine",
            "name": "two",
            "gpus": [{"vendor": "nvidia", "model": "H100-SXM5-80GB", "count": 2}],
        }
    )
    found = discover(
        NvidiaBackend(SimulatedNvml(machine, node="n", state_dir=tmp_path_factory.mktemp("nvml")))
    )
    gpus = []
    for gpu in found.gpus:
        assert gpu.partitioning is not None
        profiles = tuple(p for p in gpu.partitioning.profiles if p.name in {"3g.40gb", "7g.80gb"})
        gpus.append(replace(gpu, partitioning=replace(gpu.partitioning, profiles=profiles)))
    return replace(found, gpus=tuple(gpus))


async def populate(api: KubeApi) -> None:
    """A node, a class per type, and pods that want three partitions and one whole GPU."""
    await api.create(NODE, {"metadata": {"name": "n"}})
    for wanted in ("gpu", "partition"):
        selectors = [{"cel": {"expression": wanted}}]
        await api.create(
            DEVICE_CLASS, {"metadata": {"name": wanted}, "spec": {"selectors": selectors}}
        )
    for index, wanted in enumerate(["partition", "gpu", "partition", "partition"]):
        name = f"{wanted}-{index}"
        request = {"name": "r", "exactly": {"deviceClassName": wanted}}
        claim = {"metadata": {"name": name}, "spec": {"devices": {"requests": [request]}}}
        await api.create(RESOURCE_CLAIM, claim, namespace="default")
        pod = {
            "metadata": {"name": name},
            "spec": {
                "containers": [{"name": "c", "image": "busybox"}],
                "resourceClaims": [{"name": "r", "resourceClaimName": name}],
            },
        }
        await api.create(POD, pod, namespace="default")


async def race(api: LocalApi, inventory: Inventory, rng: random.Random) -> list[str]:
    """Publish while pods are scheduled, then once more in peace; the devices that claims were given, sorted."""
    await populate(api)
    state = NodeState("n", boot_id="boot", owner="test")
    state.observe(inventory)
    publisher = Publisher(
        jittered(api, rng), state, PublishPolicy(), telemetry_of(Silent()), SystemClock()
    )

    async def answer(question: Question) -> Placed | Unplaced:
        return place(question, ByType())

    scheduler = Scheduler(jittered(api, rng), answer, api.bind, Silent())

    async def schedule_meanwhile() -> None:
        while not publishing.done():
            await scheduler.schedule_pending()

    publishing = asyncio.create_task(publisher.reconcile())
    await asyncio.gather(publishing, schedule_meanwhile())
    await publisher.reconcile()
    await scheduler.schedule_pending()
    claims = [claim_from_json(item) for item in (await api.list(RESOURCE_CLAIM)).items]
    return sorted(r.device for c in claims if c.allocation for r in c.allocation.results)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("api_type", [LocalApi, LyingProbe])
async def test_with_every_gate_off_no_interleaving_allocates_a_partition(
    inventory: Inventory, api_type: type[LocalApi]
) -> None:
    """Over 1,000 interleavings only the whole GPU is ever given out, also where the probe was answered too kindly."""
    first = all_forms(inventory.gpus[0])
    whole = next(
        form.name
        for form in first
        if render_device(form, with_counters=False).attributes["type"] == "gpu"
    )
    for seed in SEEDS:
        api = api_type(Store(), gates=ALL_OFF)
        given = await race(api, inventory, random.Random(seed))
        assert given == [whole], f"seed {seed}"


@pytest.mark.timeout(300)
async def test_with_the_gates_on_what_is_given_out_never_overlaps(inventory: Inventory) -> None:
    """Over 200 interleavings the claims of one GPU add up to no more than it has, and all four fit on two GPUs."""
    for seed in SEEDS[:200]:
        given = await race(LocalApi(Store()), inventory, random.Random(seed))
        positions: list[tuple[str, int]] = []
        for name in given:
            form = next(f for gpu in inventory.gpus for f in all_forms(gpu) if f.name == name)
            positions += [(form.gpu.pci_address, position) for position in form.positions]
        assert len(positions) == len(set(positions)), f"seed {seed}: {given}"
        assert len(given) >= 3, f"seed {seed}: {given}"
