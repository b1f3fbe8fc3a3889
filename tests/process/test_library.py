"""The node plugin on NVML itself: its process loads a library from the host's driver, and what that says reaches the cluster."""

from __future__ import annotations

import pytest

from dra_driver.config.load import SimulatedLoad
from dra_driver.vendors.nvidia.nvml_health import Field, XidEvent
from kubelet_plugin.app import PING_S
from tests.process.conftest import Cluster, Plugin, eventually
from tests.process.library_host import put_on_library
from tests.process.test_activity import scraped
from tests.process.test_health import GPU, NAME, names_of_first, tainted, until_unhealthy
from tests.vendors.nvidia.fake.condition import load_of, report, set_fields
from tests.vendors.nvidia.fake.machine import FakeHost


@pytest.fixture
def host(idle: Plugin) -> FakeHost:
    """The machine below the plugin that was not started yet."""
    return put_on_library(idle)


def instances(host: FakeHost) -> int:
    """How many GPU instances there are."""
    with host.changing() as machine:
        return sum(bool(one.kind) for gpu in machine.gpus for one in gpu.instances)


async def test_an_xid_of_the_driver_taints_its_gpu(
    idle: Plugin, cluster: Cluster, host: FakeHost
) -> None:
    """From the library's event set to the slices and the kubelet, for that GPU alone."""
    with host.changing_gpu(GPU) as gpu:
        set_fields(gpu.health, {Field.RECOVERY_ACTION: None})
    await idle.start()
    await eventually(cluster.is_published)
    assert await tainted(cluster) == {}
    with host.changing_gpu(GPU) as gpu:
        report(gpu.health, XidEvent(xid=119))
    taint = "gpu.dra-driver.dev/driver-error=119:NoSchedule"

    async def is_tainted() -> bool:
        return taint in await tainted(cluster)

    await eventually(is_tainted, within_s=2 * PING_S + 3)
    first = await names_of_first(cluster)
    assert await tainted(cluster) == {taint: first}
    await until_unhealthy(idle, first)


async def test_claims_are_cut_out_of_the_librarys_gpus(
    idle: Plugin, cluster: Cluster, host: FakeHost
) -> None:
    """Partitions stand on the hardware while their claims are prepared, beside a whole GPU, and nothing is left afterwards."""
    await idle.start()
    await eventually(cluster.is_published)
    devices = (f"{NAME}-mig-1g-10gb-6", f"{NAME}-mig-3g-40gb-0", "gpu-0000-43-00-0")
    claims = [await cluster.new_claim(name) for name in devices]
    answers = await idle.prepare(*claims)
    assert {answer.error for answer in answers.values()} == {""}
    assert instances(host) == 2
    assert await idle.prepare(*claims) == answers
    answers = await idle.unprepare(*claims)
    assert {answer.error for answer in answers.values()} == {""}
    assert instances(host) == 0


async def test_what_a_claims_partition_does_is_exported(
    idle: Plugin, cluster: Cluster, host: FakeHost
) -> None:
    """The instance's own average of the library's counters, and its memory; its GPU's neighbours are idle."""
    idle.settings |= {"metrics-address": "127.0.0.1:0", "activity-interval-s": "0.05"}
    await idle.start()
    await eventually(cluster.is_published)
    claim = await cluster.new_claim(f"{NAME}-mig-1g-10gb-6")
    assert not (await idle.prepare(claim))[claim["metadata"]["uid"]].error
    with host.changing_gpu(GPU) as gpu:
        (device,) = (one for made in gpu.instances for one in made.computes if one.kind)
        device.load = load_of(SimulatedLoad(sm=(0.5,), memory_mib=4096))

    async def is_exported() -> bool:
        series = await scraped(idle)
        ratios = [value for name, value in series.items() if "sm_activity_ratio{" in name]
        used = [value for name, value in series.items() if "memory_used_bytes{" in name]
        return {0.0, 0.5} == {*ratios} and max(used) == 4096 << 20

    await eventually(is_exported)
