"""MIG on a real kubelet and a real runtime, up to eight GPUs full of it; what there is on a GPU is asked of NVML."""

from __future__ import annotations

from typing import TypeAlias

import pytest

from dra_driver.kube.rest import RestApi
from dra_driver.model.kinds import NAMESPACE
from tests.cluster.controlplane import ControlPlane
from tests.cluster.kubelet.claimants import device_of, keeps_counters, partition, pod, template
from tests.cluster.kubelet.hardware import COMMON_NODES, Hardware
from tests.cluster.kubelet.plugin import Plugin
from tests.cluster.kubelet.pods import Workload
from tests.cluster.node import Node
from tests.cluster.waiting import eventually

Cuts: TypeAlias = dict[int, str]
"""Profiles of instances by where they start."""

GPUS = 8
THREE: Cuts = {1: "1g.10gb", 2: "2g.20gb", 4: "3g.40gb"}
"""Each starts where it has as many slices of memory."""

SEVEN: Cuts = dict.fromkeys(range(7), "1g.10gb")
ADMIN_ACCESS = {"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}}
MONITOR = {
    "deviceClassName": "gpu-monitor.dra-driver.dev",
    "allocationMode": "All",
    "adminAccess": True,
    "tolerations": [{"key": "gpu.dra-driver.dev/monitor", "operator": "Exists"}],
}


@pytest.fixture
def hardware(ready_node: Node, control_plane: ControlPlane, cuts: Cuts) -> Hardware:
    """Eight GPUs. Where the cluster keeps no counters, an administrator has cut each of them beforehand, as the test says."""
    spec = f"vendor: nvidia, model: H100-SXM5-80GB, count: {GPUS}"
    if not keeps_counters(control_plane):
        cut = (f"{{profile: {profile}, start: {start}}}" for start, profile in cuts.items())
        spec += f", instances: [{', '.join(cut)}]"
    return Hardware(ready_node, f"eight-with-{len(cuts)}", f"  - {{{spec}}}")


@pytest.mark.parametrize("cuts", [THREE], ids=["three"])
async def test_pods_see_the_instances_of_their_sizes(
    plugin: Plugin, workload: Workload, cuts: Cuts
) -> None:
    """One pod for each of three sizes: its device nodes, by their numbers, its instance's UUID, and nobody else's."""
    for size, profile in cuts.items():
        await workload.apply(template(f"size-{size}", partition(profile)))
        await workload.apply(pod(f"size-{size}", f"size-{size}"))
    seen = []
    for size in cuts:
        view = workload.view(await workload.runs(f"size-{size}"), "main")
        device = device_of(view, plugin.hardware)
        assert device.size == size
        seen.append(device.uuid)
    assert len(set(seen)) == len(cuts)
    for size in cuts:
        await workload.delete(f"size-{size}")
    await eventually(lambda: not plugin.leftovers())
    assert plugin.hardware.instances() == plugin.hardware.theirs


@pytest.mark.parametrize("cuts", [SEVEN], ids=["seven"])
async def test_eight_gpus_are_used_up_by_fifty_six_pods(
    plugin: Plugin, workload: Workload, control_plane: ControlPlane, namespace: str, api: RestApi
) -> None:
    """All of them run, each with an instance of its own; monitors come beside them; at the end no instance is left behind."""
    hardware = plugin.hardware
    names = [f"seventh-{number}" for number in range(7 * GPUS)]
    await workload.apply(template("seventh", partition("1g.10gb")))
    await workload.apply(*(pod(name, "seventh") for name in names))
    pods = [await workload.runs(name, within_s=120) for name in names]
    seen = {device_of(workload.view(one, "main"), hardware).uuid for one in pods}
    full = hardware.instances()
    assert len(seen) == len(full) == len(names)
    if keeps_counters(control_plane):
        await api.patch(NAMESPACE, namespace, ADMIN_ACCESS)
        await workload.apply(template("monitor", MONITOR), pod("monitor", "monitor"))
        view = workload.view(await workload.runs("monitor"), "main")
        assert view.nodes == COMMON_NODES | hardware.gpu_nodes()
        assert set(view.uuids) == hardware.gpu_uuids()
        await workload.delete("monitor")
        await eventually(lambda: workload.is_gone("monitor"))
    assert hardware.instances() == full
    for name in names:
        await workload.delete(name)
    await eventually(lambda: not plugin.leftovers(), within_s=60)
    assert hardware.instances() == hardware.theirs
