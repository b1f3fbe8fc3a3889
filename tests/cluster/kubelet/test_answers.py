"""What the kubelet says of our devices, to others on the node and in the status of pods."""

from __future__ import annotations

import pytest

from dra_driver.wire.pod_resources import pods_by_claim
from tests.cluster.controlplane import ControlPlane
from tests.cluster.kubelet.plugin import Plugin
from tests.cluster.kubelet.pods import Workload, quickstart
from tests.cluster.waiting import eventually
from tests.vendors.faults import set_faults


async def test_the_kubelet_names_the_claims_that_pods_use(
    plugin: Plugin, workload: Workload
) -> None:
    """By namespace and name, as long as the pod is there: this is what keeps a claim from being released under a pod."""
    socket = plugin.node.kubelet_dir / "pod-resources" / "kubelet.sock"
    await workload.apply(*quickstart("1-"))
    await workload.runs("whole-gpu")
    [claim] = await workload.claims()
    name = (claim["metadata"]["namespace"], claim["metadata"]["name"])
    assert name in await pods_by_claim(socket)
    await workload.delete("whole-gpu")
    await eventually(lambda: workload.is_gone("whole-gpu"))

    async def is_free() -> bool:
        return name not in await pods_by_claim(socket)

    await eventually(is_free)


async def test_a_pod_s_status_shows_how_its_gpu_is(
    plugin: Plugin, workload: Workload, control_plane: ControlPlane
) -> None:
    """Healthy, unhealthy once the GPU does not answer, and healthy again."""
    if control_plane.version < (1, 36):
        pytest.skip("the gate ResourceHealthStatus is off in Kubernetes 1.34")
    await workload.apply(*quickstart("1-"))
    await workload.runs("whole-gpu")
    [claim] = await workload.claims()
    [result] = claim["status"]["allocation"]["devices"]["results"]

    async def shows(health: str) -> bool:
        [status] = (await workload.pod("whole-gpu"))["status"]["containerStatuses"]
        claims = status.get("allocatedResourcesStatus", [])
        return [one["health"] for item in claims for one in item["resources"]] == [health]

    await eventually(lambda: shows("Healthy"))
    address = result["device"].removeprefix("gpu-")
    pci = f"{address[:4]}:{address[5:7]}:{address[8:10]}.{address[11:]}"
    folder = plugin.hardware.folder / "nvidia"
    set_faults(folder, {pci: {"error": "GPU_IS_LOST"}})
    await eventually(lambda: shows("Unhealthy"), within_s=60)
    set_faults(folder, {})
    await eventually(lambda: shows("Healthy"), within_s=60)
