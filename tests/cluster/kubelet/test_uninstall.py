"""Install, use, drain, uninstall: nothing is left, and no pod hangs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from dra_driver.kube.codec import slice_from_json
from dra_driver.kube.rest import RestApi
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.model.names import DRIVER_NAME
from dra_driver.rules.draining import is_drained
from tests.cluster.controlplane import ControlPlane
from tests.cluster.kubelet.plugin import Plugin
from tests.cluster.kubelet.pods import Workload, quickstart
from tests.cluster.waiting import eventually

OURS = {"fieldSelector": f"spec.driver={DRIVER_NAME}"}


async def test_nothing_is_left(
    plugin: Plugin, workload: Workload, control_plane: ControlPlane, api: RestApi
) -> None:
    """The drain waits for the running pod, keeps a new one waiting, and ends with the first; then the plugin goes."""
    await workload.apply(*quickstart("1-"))
    await workload.runs("whole-gpu")
    draining = await start_drain(control_plane)
    assert draining.stdout is not None
    while b"pods/whole-gpu" not in (line := await draining.stdout.readline()):
        assert line, "the drain ended while a pod had a device"

    async def is_closed() -> bool:
        slices = (await api.list(RESOURCE_SLICE, selectors=OURS)).items
        return all(is_drained(slice_from_json(item)) for item in slices)

    await eventually(is_closed)
    await workload.apply(*quickstart("5-"))
    await asyncio.sleep(2)
    assert "nodeName" not in (await workload.pod("amd-gpu"))["spec"]
    await workload.delete("amd-gpu")
    await workload.delete("whole-gpu")
    await eventually(lambda: workload.is_gone("whole-gpu"))
    assert await draining.wait() == 0
    assert plugin.stop() == 0
    assert not (await api.list(RESOURCE_SLICE, selectors=OURS)).items
    assert not plugin.leftovers()
    sockets = [*plugin.data_dir.rglob("*.sock"), *plugin.node.registry_dir.iterdir()]
    assert not sockets


async def start_drain(plane: ControlPlane) -> asyncio.subprocess.Process:
    """`dra drain --all`, as the chart's hook runs it."""
    program = Path(sys.executable).with_name("dra")
    return await asyncio.create_subprocess_exec(
        *(program, "drain", "--all", "--for-removal", "--kubeconfig", plane.kubeconfig),
        stdout=asyncio.subprocess.PIPE,
    )
