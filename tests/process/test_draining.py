"""`dra drain` and the plugin together: nothing new is given out, and a drained plugin leaves nothing behind."""

from __future__ import annotations

import asyncio
import sys

import pytest

from dra_driver.model.kinds import RESOURCE_CLAIM, RESOURCE_SLICE
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.gates import Gates
from tests.process.conftest import NODE_NAME, Cluster, Plugin, eventually

TAINT = "gpu.dra-driver.dev/draining"
PLAIN = pytest.mark.parametrize("gates", [Gates(partitionable_devices=False, device_taints=False)])


async def drain(cluster: Cluster, *arguments: str) -> tuple[int, str]:
    """`dra drain`: its exit code and all that it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dra_driver.cli.main", "drain", *arguments),
        *("--server", cluster.server.url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def devices(cluster: Cluster) -> list[JsonObject]:
    """All published devices."""
    return [one for item in await cluster.slices() for one in item["spec"].get("devices", ())]


async def tainted(cluster: Cluster) -> list[bool]:
    """Which devices say that they are being drained."""
    return [
        any(taint["key"] == TAINT for taint in one.get("taints", ()))
        for one in await devices(cluster)
    ]


async def test_a_node_is_drained_and_given_back(plugin: Plugin, cluster: Cluster) -> None:
    """Every device is tainted without a new generation; `--undo` takes the taints away again."""
    before = await cluster.slices()
    code, said = await drain(cluster, NODE_NAME)
    assert (code, said.splitlines()[-1]) == (0, f"node {NODE_NAME} drained: no claim has a device")
    assert set(await tainted(cluster)) == {True}
    generations = {item["spec"]["pool"]["generation"] for item in await cluster.slices()}
    assert generations == {before[0]["spec"]["pool"]["generation"]}
    assert (await drain(cluster, "--all", "--undo"))[0] == 0
    await eventually(lambda: not_tainted(cluster))
    assert [item["spec"] for item in await cluster.slices()] == [item["spec"] for item in before]


async def not_tainted(cluster: Cluster) -> bool:
    """Whether all devices may be given out."""
    return set(await tainted(cluster)) == {False}


async def all_tainted(cluster: Cluster) -> bool:
    """Whether the plugin has done what `dra drain` asked for: a short `--timeout` may end before."""
    return set(await tainted(cluster)) == {True}


async def all_withdrawn(cluster: Cluster) -> bool:
    """Whether the pool is complete and has no device."""
    return await cluster.is_published() and not await devices(cluster)


async def test_who_holds_a_device_is_named_and_waited_for(plugin: Plugin, cluster: Cluster) -> None:
    """Until the time is up, which ends in an error; the node stays drained, and the claim can still be prepared."""
    claim = await cluster.new_claim((await devices(cluster))[0]["name"])
    name = f"claim default/{claim['metadata']['name']}, which nobody uses"
    assert (await drain(cluster, "--all", "--timeout", "0s"))[0] == 1
    await eventually(lambda: all_tainted(cluster))
    code, said = await drain(cluster, "--all", "--timeout", "1s")
    assert code == 1
    assert f"waiting for {name}" in said
    assert f"error: not drained after 1 s: {name}" in said
    assert "wait longer with --timeout" in said
    assert set(await tainted(cluster)) == {True}
    uid = claim["metadata"]["uid"]
    assert (await plugin.prepare(claim))[uid].error == ""
    waiting = asyncio.create_task(drain(cluster, "--all"))
    await cluster.api.delete(RESOURCE_CLAIM, claim["metadata"]["name"], namespace="default")
    assert (await waiting)[0] == 0


async def test_wiped_slices_come_back_drained(plugin: Plugin, cluster: Cluster) -> None:
    """The plugin remembers, and so does the next one, from what is stored."""
    await drain(cluster, "--all")
    for item in await cluster.slices():
        await cluster.api.delete(RESOURCE_SLICE, item["metadata"]["name"])
    await eventually(cluster.is_published)
    assert set(await tainted(cluster)) == {True}
    claim = await cluster.new_claim((await devices(cluster))[0]["name"])
    assert (await plugin.prepare(claim))[claim["metadata"]["uid"]].error == ""
    await plugin.stop(within_s=30)  # it waits for its claim first, in vain
    await plugin.start()
    await asyncio.sleep(0.5)
    assert set(await tainted(cluster)) == {True}


@PLAIN
async def test_where_taints_are_not_kept_devices_are_withdrawn(
    plugin: Plugin, cluster: Cluster
) -> None:
    """The pool is complete and empty; what was given out before is prepared all the same."""
    claim = await cluster.new_claim((await devices(cluster))[0]["name"])
    code, _ = await drain(cluster, "--all", "--timeout", "1s")
    assert code == 1
    await eventually(lambda: all_withdrawn(cluster))
    assert (await plugin.prepare(claim))[claim["metadata"]["uid"]].error == ""


async def test_a_drain_outlives_the_plugin(plugin: Plugin, cluster: Cluster) -> None:
    """The Node keeps it while there are no slices: the next plugin comes back drained, until `--undo`, also in between."""
    await drain(cluster, "--all")
    await plugin.stop()
    assert await cluster.slices() == []
    await plugin.start()
    await eventually(cluster.is_published)
    assert set(await tainted(cluster)) == {True}
    await plugin.stop()
    assert (await drain(cluster, NODE_NAME, "--undo"))[0] == 0
    await plugin.start()
    await eventually(cluster.is_published)
    assert set(await tainted(cluster)) == {False}


async def test_a_drain_for_removal_ends_with_the_plugin(plugin: Plugin, cluster: Cluster) -> None:
    """What is installed again later gives its devices out."""
    await drain(cluster, "--all", "--for-removal")
    assert set(await tainted(cluster)) == {True}
    await plugin.stop()
    await plugin.start()
    await eventually(cluster.is_published)
    assert set(await tainted(cluster)) == {False}


async def test_a_drained_plugin_leaves_nothing_when_it_stops(
    plugin: Plugin, cluster: Cluster
) -> None:
    """No slice, no socket, no CDI file."""
    await drain(cluster, "--all")
    assert await plugin.stop() == 0
    assert await cluster.slices() == []
    assert not any(socket.exists() for socket in plugin.sockets)
    assert not list(plugin.cdi_dir.glob("*"))


async def test_a_drained_plugin_waits_for_the_kubelet(plugin: Plugin, cluster: Cluster) -> None:
    """A claim that is gone from the API but still prepared is given back before the plugin ends."""
    claim = await cluster.new_claim((await devices(cluster))[0]["name"])
    await plugin.prepare(claim)
    await cluster.api.delete(RESOURCE_CLAIM, claim["metadata"]["name"], namespace="default")
    assert (await drain(cluster, "--all"))[0] == 0
    stopping = asyncio.create_task(plugin.stop())
    await asyncio.sleep(0.3)
    assert not stopping.done()
    assert (await plugin.unprepare(claim))[claim["metadata"]["uid"]].error == ""
    assert await stopping == 0
    assert await cluster.slices() == []
    assert not list(plugin.cdi_dir.glob("*"))


async def test_slices_stay_when_an_undrained_plugin_stops(plugin: Plugin, cluster: Cluster) -> None:
    """An upgrade must not lose them."""
    before = await cluster.slices()
    assert await plugin.stop() == 0
    assert await cluster.slices() == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "name the nodes to drain, or say --all"),
        (("--all", "n"), 2, "name the nodes to drain, or say --all"),
        (
            ("--all", "--timeout", "soon"),
            2,
            "'soon' is no duration; write it like 90s, 10m or 1h30m",
        ),
        (("elsewhere",), 1, "node elsewhere: gpu.dra-driver.dev publishes nothing there"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    plugin: Plugin, cluster: Cluster, arguments: tuple[str, ...], code: int, words: str
) -> None:
    """No node, a wrong name, no time: nothing is drained."""
    answer, said = await drain(cluster, *arguments)
    assert answer == code, said
    assert words in said
    assert set(await tainted(cluster)) == {False}
