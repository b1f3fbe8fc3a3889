"""A real node per control plane, and our plugin on it as a process."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator

import pytest

from dra_driver.kube.rest import RestApi
from dra_driver.model.errors import NotFound
from dra_driver.model.kinds import NODE, RESOURCE_SLICE
from tests.cluster.controlplane import ControlPlane
from tests.cluster.kubelet.hardware import Hardware
from tests.cluster.kubelet.plugin import Plugin
from tests.cluster.kubelet.pods import Workload, is_published
from tests.cluster.node import Node, running_node
from tests.cluster.release import Release, installed
from tests.cluster.waiting import eventually

_TWO_VENDORS = """
  - {vendor: nvidia, model: H100-SXM5-80GB, count: 4}
  - {vendor: amd, model: MI300X, count: 2}
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests here need a node."""
    for item in items:
        if __file__.rpartition("/")[0] in str(item.path):
            item.add_marker(pytest.mark.node)


@pytest.fixture(scope="session")
def node(control_plane: ControlPlane) -> Iterator[Node]:
    """A node called node-a; its kubelet is up."""
    assert os.geteuid() == 0, "a kubelet needs root: run `make test-node` as root"
    for program in ("runc", "busybox"):
        assert shutil.which(program), f"{program} is missing: install runc and busybox-static"
    with running_node(control_plane, "node-a") as node:
        yield node


@pytest.fixture
async def ready_node(node: Node, api: RestApi) -> Node:
    """The node, once the scheduler may use it; nothing is published on it, whatever the plugins of other tests did."""
    for item in (await api.list(RESOURCE_SLICE)).items:
        await api.delete(RESOURCE_SLICE, item["metadata"]["name"])

    async def is_ready() -> bool:
        try:
            found = await api.get(NODE, node.name)
        except NotFound:
            return False
        conditions = {one["type"]: one["status"] for one in found["status"]["conditions"]}
        return conditions.get("Ready") == "True" and not found["spec"].get("taints")

    await eventually(is_ready)
    return node


@pytest.fixture
async def release(
    ready_node: Node, control_plane: ControlPlane, api: RestApi
) -> AsyncIterator[Release]:
    """The chart, with a DaemonSet that fits no node: there is no image, so tests start the plugin themselves."""
    async with installed(control_plane, api, {"nodeSelector": {"tests": "none"}}) as release:
        yield release


@pytest.fixture
def hardware(ready_node: Node) -> Hardware:
    """GPUs of both vendors."""
    return Hardware(ready_node, "two-vendors", _TWO_VENDORS)


@pytest.fixture
async def plugin(
    ready_node: Node, release: Release, hardware: Hardware, api: RestApi
) -> AsyncIterator[Plugin]:
    """Our plugin with the rights that the chart gives, registered and with all its slices published."""
    plugin = Plugin(ready_node, await release.access_of(ready_node.name), hardware)
    try:
        plugin.start()
        await eventually(lambda: is_published(api, len(hardware.vendors)))
        yield plugin
    finally:
        plugin.close()


@pytest.fixture
async def workload(api: RestApi, namespace: str, plugin: Plugin) -> AsyncIterator[Workload]:
    """Nothing yet; whatever the test makes of it is deleted, and the plugin has let go of all of it."""
    workload = Workload(api, namespace, plugin.node)
    yield workload
    await workload.delete_all()
    await eventually(lambda: not plugin.leftovers())
