"""A GPU on which an administrator keeps an instance, on a real kubelet and with a real scheduler."""

from __future__ import annotations

import pytest

from tests.cluster.controlplane import ControlPlane
from tests.cluster.kubelet.claimants import device_of, keeps_counters, partition, pod, template
from tests.cluster.kubelet.hardware import Hardware
from tests.cluster.kubelet.plugin import Plugin
from tests.cluster.kubelet.pods import Workload
from tests.cluster.node import Node
from tests.cluster.waiting import eventually

BESIDE = 4
"""How many instances of one slice fit beside the administrator's."""


@pytest.fixture
def hardware(ready_node: Node, control_plane: ControlPlane) -> Hardware:
    """One GPU, with a 3g at 4."""
    if not keeps_counters(control_plane):
        pytest.skip("Kubernetes 1.34 drops counters: there is nothing beside the instance")
    gpu = "{vendor: nvidia, model: H100-SXM5-80GB, instances: [{profile: 3g.40gb, start: 4}]}"
    return Hardware(ready_node, "foreign", f"  - {gpu}")


async def test_the_instance_stays_and_pods_run_beside_it_and_in_it(
    plugin: Plugin, workload: Workload
) -> None:
    """Pods fill up the other half; one more waits; a pod of the instance's size gets the instance, and leaves it behind."""
    hardware = plugin.hardware
    [theirs] = hardware.mig_devices()
    await workload.apply(
        template("one", partition("1g.10gb")), template("three", partition("3g.40gb"))
    )
    names = [f"beside-{number}" for number in range(BESIDE)]
    await workload.apply(*(pod(name, "one") for name in names))
    pods = [await workload.runs(name) for name in names]
    beside = {device_of(workload.view(one, "main"), hardware).uuid for one in pods}
    assert len(beside) == BESIDE
    assert theirs.uuid not in beside
    await workload.apply(pod("one-more", "one"))
    await workload.waits("one-more")
    await workload.apply(pod("inside", "three"))
    inside = workload.view(await workload.runs("inside"), "main")
    assert device_of(inside, hardware) == theirs
    assert "nodeName" not in (await workload.pod("one-more"))["spec"]
    await workload.delete_all()
    await eventually(lambda: not plugin.leftovers())
    assert hardware.mig_devices() == [theirs]
