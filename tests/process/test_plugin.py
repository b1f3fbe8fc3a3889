"""`dra-kubelet-plugin run` against any API server and any folders."""

from __future__ import annotations

import signal
from collections import Counter

import grpc.aio
import pytest

from dra_driver.model.kinds import EVENT, NODE, RESOURCE_SLICE
from dra_driver.model.names import DRIVER_NAME
from dra_driver.sandbox.apiserver.gates import Gates
from dra_driver.wire.registration_v1 import api_pb2, api_pb2_grpc
from tests.process.conftest import NODE_NAME, Cluster, Plugin, eventually

WHOLE = "gpu-0000-1b-00-0"
OTHER = "gpu-0000-43-00-0"
SMALL = f"{WHOLE}-mig-1g-10gb-6"
ALL_OFF = Gates(
    partitionable_devices=False,
    consumable_capacity=False,
    device_taints=False,
    binding_conditions=False,
    admin_access=False,
    prioritized_list=False,
)


async def test_it_introduces_itself_to_the_kubelet(plugin: Plugin) -> None:
    """Type, name, the DRA service's socket and the version to prefer."""
    async with grpc.aio.insecure_channel(f"unix:{plugin.sockets[0]}") as channel:
        info = await api_pb2_grpc.RegistrationStub(channel).GetInfo(
            api_pb2.InfoRequest(), timeout=1
        )
    assert (info.type, info.name, info.endpoint) == (
        "DRAPlugin",
        DRIVER_NAME,
        str(plugin.sockets[1]),
    )
    assert info.supported_versions[0] == "v1.DRAPlugin"
    assert {oct(socket.stat().st_mode & 0o777) for socket in plugin.sockets} == {"0o600"}


@pytest.mark.parametrize("device", [WHOLE, SMALL])
async def test_a_claim_costs_one_get(plugin: Plugin, cluster: Cluster, device: str) -> None:
    """Over HTTP: one GET for a new claim, no request at all for its replay and its unprepare."""
    claim = await cluster.new_claim(device)
    uid = claim["metadata"]["uid"]
    await cluster.until_quiet(plugin)
    before = Counter(cluster.server.requests)
    first = (await plugin.prepare(claim))[uid]
    assert first.error == ""
    assert cluster.server.requests - before == {("get", "resourceclaims"): 1}
    assert first.devices[0].cdi_device_ids[0] == f"{DRIVER_NAME}/claim={uid}-{device}"
    assert (await plugin.prepare(claim))[uid] == first
    assert (await plugin.unprepare(claim))[uid].error == ""
    await cluster.until_quiet(plugin)
    assert cluster.server.requests - before == {("get", "resourceclaims"): 1}
    assert list(plugin.cdi_dir.iterdir()) == []


async def test_one_bad_claim_of_a_call_costs_only_itself(plugin: Plugin, cluster: Cluster) -> None:
    """Wrong parameters are named with object, field and fix; the other claims of the call are served."""
    header = {"apiVersion": "gpu.dra-driver.dev/v1alpha1", "kind": "GpuConfig"}
    entry = {
        "source": "FromClaim",
        "opaque": {
            "driver": DRIVER_NAME,
            "parameters": header | {"sharin": {"strategy": "Exclusive"}},
        },
    }
    bad, good = await cluster.new_claim(WHOLE, config=(entry,)), await cluster.new_claim(OTHER)
    answers = await plugin.prepare(bad, good)
    name = bad["metadata"]["name"]
    error = answers[bad["metadata"]["uid"]].error
    assert error.startswith(f"InvalidParameters: claim default/{name}: parameters: ")
    assert "sharin" in error
    assert "sharing" in error
    assert answers[good["metadata"]["uid"]].error == ""


async def test_slices_come_back_when_the_kubelet_has_wiped_them(
    plugin: Plugin, cluster: Cluster
) -> None:
    """Within two seconds, all of them."""
    for item in await cluster.slices():
        await cluster.api.delete(RESOURCE_SLICE, item["metadata"]["name"])
    await eventually(cluster.is_published, within_s=2)


async def test_a_restart_writes_no_slice(plugin: Plugin, cluster: Cluster) -> None:
    """SIGTERM ends it with 0, its sockets go and its slices stay; nothing differs, so nothing is written."""
    before = {
        item["metadata"]["name"]: item["metadata"]["resourceVersion"]
        for item in await cluster.slices()
    }
    assert await plugin.stop() == 0
    assert not any(socket.exists() for socket in plugin.sockets)
    lists = cluster.server.requests["list", "resourceslices"]
    await plugin.start()
    await eventually(lambda: cluster.server.requests["list", "resourceslices"] > lists)
    claim = await cluster.new_claim(WHOLE)
    assert (await plugin.prepare(claim))[claim["metadata"]["uid"]].error == ""
    after = {
        item["metadata"]["name"]: item["metadata"]["resourceVersion"]
        for item in await cluster.slices()
    }
    assert after == before


async def test_a_killed_plugin_goes_on_where_it_was(plugin: Plugin, cluster: Cluster) -> None:
    """SIGKILL, and no API server at the next start: stale sockets are no obstacle, replay and unprepare work."""
    claim = await cluster.new_claim(SMALL)
    uid = claim["metadata"]["uid"]
    first = (await plugin.prepare(claim))[uid]
    await plugin.stop(signal.SIGKILL)
    assert plugin.sockets[0].exists()
    await cluster.server.stop()
    await plugin.start()
    assert (await plugin.prepare(claim))[uid] == first
    assert (await plugin.unprepare(claim))[uid].error == ""
    assert list(plugin.cdi_dir.iterdir()) == []


async def test_an_api_server_that_comes_later_is_used(idle: Plugin, cluster: Cluster) -> None:
    """Publishing waits for it; the process does not end."""
    port = int(cluster.server.url.rsplit(":", 1)[1])
    await cluster.server.stop()
    await idle.start()
    await eventually(lambda: "cannot publish" in idle.log)
    await cluster.server.start(port=port)
    await eventually(cluster.is_published, within_s=15)


async def test_a_node_that_is_not_in_the_api_yet_is_waited_for(
    idle: Plugin, cluster: Cluster
) -> None:
    """It says what is missing, backs off, and publishes once the Node is there, owned by it."""
    await cluster.api.delete(NODE, NODE_NAME)
    await idle.start()
    await eventually(lambda: "cannot publish" in idle.log)
    assert cluster.server.requests["create", "resourceslices"] <= 2  # the two probes
    node = await cluster.api.create(NODE, {"metadata": {"name": NODE_NAME}})
    await eventually(cluster.is_published)
    owners = [item["metadata"]["ownerReferences"][0]["uid"] for item in await cluster.slices()]
    assert set(owners) == {node["metadata"]["uid"]}


@pytest.mark.parametrize("gates", [ALL_OFF])
async def test_without_counters_only_whole_gpus_are_published(
    plugin: Plugin, cluster: Cluster
) -> None:
    """Every gate off: eight GPUs, no partition, and an Event on the node that says why."""
    devices = [
        device for item in await cluster.slices() for device in item["spec"].get("devices", [])
    ]
    assert len(devices) == 8
    assert {device["attributes"]["type"]["string"] for device in devices} == {"gpu"}

    async def told() -> bool:
        events = (await cluster.api.list(EVENT)).items
        return any(event["reason"] == "PartitionsNotPublished" for event in events)

    await eventually(told)


async def test_a_second_plugin_for_the_node_is_refused(plugin: Plugin, cluster: Cluster) -> None:
    """It names who is there; the first one goes on."""
    assert plugin.process is not None
    said = await plugin.fails()
    assert f"is held by process {plugin.process.pid}: a plugin serves this folder already" in said
    assert "stop that one, or give this one a dataDir or a podUid of its own" in said
    claim = await cluster.new_claim(WHOLE)
    assert (await plugin.prepare(claim))[claim["metadata"]["uid"]].error == ""


async def test_a_live_socket_of_somebody_else_is_not_stolen(plugin: Plugin) -> None:
    """Another data folder, the same registration socket: refused by name, and the first one stays registered."""
    said = await plugin.fails(data_dir=str(plugin.folder / "other"))
    assert f"socket {plugin.sockets[0]}: another process serves it" in said
    assert plugin.sockets[0].exists()


async def test_what_cannot_start_says_why_in_one_line(idle: Plugin) -> None:
    """Object, value and fix: folder, machine, layout, settings file, URL, socket path, simulation."""
    missing = str(idle.folder / "nowhere")
    assert f"folder {missing} does not exist; mount" in await idle.fails(registry_dir=missing)
    assert "machine 'nope' is not one of 4xa30" in await idle.fails(machine="nope")
    illegal = idle.folder / "illegal.yaml"
    illegal.write_text(
        "apiVersion: gpu.dra-driver.dev/v1alpha1\nkind: Machine\nname: illegal\ngpus:\n"
        "- {vendor: nvidia, model: H100-SXM5-80GB, mode: mig, instances: [{profile: 3g.40gb, start: 2}]}\n"
    )
    said = await idle.fails(machine=str(illegal))
    assert "illegal" in said
    assert "3g.40gb" in said
    assert "0, 4" in said.replace(" and ", ", ").replace(" or ", ", ")
    assert f"settings file {missing}" in await idle.fails(config=missing)
    settings = idle.folder / "settings.yaml"
    settings.write_text("nodName: n\n")
    said = await idle.fails(config=str(settings))
    assert f"file {settings}: nodName: unknown field" in said
    assert "did you mean nodeName?" in said
    assert "server" in await idle.fails(server="not a url")
    said = await idle.fails(simulation_dir="/proc/sys/gpus")
    assert "folder /proc/sys/gpus: " in said
    assert "give simulationDir a path that this user may write" in said
    long = idle.folder / ("x" * 120)
    assert "sockets allow 107" in await idle.fails(data_dir=str(long))
