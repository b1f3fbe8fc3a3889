"""A real node per control plane, and our plugin on it as a process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

import deviceclasses
from dra_driver.kube.rest import RestApi
from dra_driver.model.errors import Conflict, NotFound
from dra_driver.model.kinds import DEVICE_CLASS, NODE
from tests.cluster.controlplane import ControlPlane
from tests.cluster.kubelet.plugin import Plugin
from tests.cluster.kubelet.pods import Workload, eventually, is_published
from tests.cluster.node import Node, running_node


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests here need a node."""
    for item in items:
        if __file__.rpartition("/")[0] in str(item.path):
            item.add_marker(pytest.mark.node)


@pytest.fixture(scope="session")
def node(control_plane: ControlPlane) -> Iterator[Node]:
    """A node called node-a; its kubelet is up."""
    assert os.geteuid() == 0, "a kubelet needs root: run `make test-node` as root"
    with running_node(control_plane, "node-a") as node:
        yield node


@pytest.fixture
async def ready_node(node: Node, api: RestApi) -> Node:
    """The node, once the scheduler may use it, in a cluster that has our classes."""

    async def is_ready() -> bool:
        try:
            found = await api.get(NODE, node.name)
        except NotFound:
            return False
        conditions = {one["type"]: one["status"] for one in found["status"]["conditions"]}
        return conditions.get("Ready") == "True" and not found["spec"].get("taints")

    for document in deviceclasses.load_all():
        with suppress(Conflict):
            await api.create(DEVICE_CLASS, document)
    await eventually(is_ready)
    return node


@pytest.fixture
def access(control_plane: ControlPlane) -> dict[str, str]:
    """The plugin's settings that say who it is."""
    return {"kubeconfig": str(control_plane.kubeconfig)}


@pytest.fixture
async def plugin(ready_node: Node, access: dict[str, str], api: RestApi) -> AsyncIterator[Plugin]:
    """Our plugin, registered and with all its slices published."""
    plugin = Plugin(ready_node, access)
    try:
        plugin.start()
        await eventually(lambda: is_published(api))
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
