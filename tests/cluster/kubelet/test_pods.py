"""What users do, on a real kubelet and a real runtime."""

from __future__ import annotations

import pytest

from tests.cluster.controlplane import ControlPlane
from tests.cluster.kubelet.claimants import keeps_counters
from tests.cluster.kubelet.plugin import Plugin
from tests.cluster.kubelet.pods import Workload, quickstart
from tests.cluster.waiting import eventually


@pytest.fixture
def partitions(control_plane: ControlPlane) -> None:
    """Only where the cluster keeps counters: before 1.36 they are off unless somebody turns them on."""
    if not keeps_counters(control_plane):
        pytest.skip("Kubernetes 1.34 drops counters, so no partitions are published there")


async def test_a_container_sees_its_whole_gpu(plugin: Plugin, workload: Workload) -> None:
    """Its device nodes and variables, and no other GPU's; after the pod everything is given back."""
    await workload.apply(*quickstart("1-"))
    view = workload.view(await workload.runs("whole-gpu"), "train")
    [claim] = await workload.claims()
    [result] = claim["status"]["allocation"]["devices"]["results"]
    address = result["device"].removeprefix("gpu-").replace("-", "_").upper()
    assert view.env["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert view.env[f"DRA_DEVICE_{address}"].startswith("GPU-")
    common = {"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"}
    assert common < view.devices
    assert len(view.devices - common) == 1
    await workload.delete("whole-gpu")
    await eventually(lambda: not plugin.leftovers())


@pytest.mark.usefixtures("partitions")
async def test_each_container_sees_the_instance_of_its_request(
    plugin: Plugin, workload: Workload
) -> None:
    """Two instances of one GPU, made for the pod: a container sees its own, and not the other's."""
    await workload.apply(*quickstart("2-"))
    pod = await workload.runs("two-instances")
    small, large = (workload.view(pod, name) for name in ("embed", "generate"))
    shared = {"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"}
    gpu = {path for path in small.devices - shared if "caps" not in path}
    assert small.devices & large.devices == shared | gpu
    assert len(gpu) == 1
    for view in (small, large):
        assert len([path for path in view.devices if "nvidia-caps" in path]) == 2
    uuids = [view.uuids for view in (small, large)]
    assert [len(one) for one in uuids] == [1, 1]
    assert uuids[0] != uuids[1]
    assert len(plugin.hardware.made()) == 2


@pytest.mark.usefixtures("partitions")
async def test_two_pods_share_one_claim(plugin: Plugin, workload: Workload) -> None:
    """Both see the same instance; it stays until the second pod has gone, too."""
    await workload.apply(*quickstart("3-"))
    views = [
        workload.view(await workload.runs(name), "notebook") for name in ("shared-a", "shared-b")
    ]
    assert views[0].devices == views[1].devices
    assert views[0].uuids == views[1].uuids != []
    await workload.delete("shared-a")
    await eventually(lambda: workload.is_gone("shared-a"))
    assert len(plugin.hardware.made()) == 1
    await workload.delete("shared-b")
    await eventually(lambda: not plugin.leftovers())


async def test_the_first_alternative_that_there_is_wins(plugin: Plugin, workload: Workload) -> None:
    """A partition where the cluster can have one, else the whole GPU; the container does not care."""
    await workload.apply(*quickstart("4-"))
    view = workload.view(await workload.runs("first-available"), "infer")
    [uuid] = view.uuids
    [claim] = await workload.claims()
    [result] = claim["status"]["allocation"]["devices"]["results"]
    is_instance = result["request"] == "gpu/instance"
    assert uuid.startswith("MIG-" if is_instance else "GPU-")
    assert bool(plugin.hardware.made()) == is_instance


async def test_an_amd_gpu_is_seen_beside_nvidia_ones(plugin: Plugin, workload: Workload) -> None:
    """Both vendors on one node: the container sees the compute device and its own render node only."""
    await workload.apply(*quickstart("5-"))
    view = workload.view(await workload.runs("amd-gpu"), "train")
    assert "/dev/kfd" in view.devices
    assert len(view.devices) == 2
    assert not any("nvidia" in path for path in view.devices)


async def test_what_does_not_fit_waits(plugin: Plugin, workload: Workload) -> None:
    """The pod is not started, and its condition says that no node has such a device."""
    await workload.apply(*quickstart("6-"))
    await workload.waits("does-not-fit")
    assert not plugin.leftovers()
