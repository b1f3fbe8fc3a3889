"""What the plugin survives: its own death at any moment, and an API server that is away, silent, or new."""

from __future__ import annotations

import asyncio
import signal
import socket
import time

import pytest
from grpc.aio import AioRpcError

from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.ports import JsonObject
from tests.process.conftest import Cluster, Plugin, eventually

GPUS = ("gpu-0000-1b-00-0", "gpu-0000-43-00-0", "gpu-0000-52-00-0")


async def claims_of_all_sorts(cluster: Cluster) -> list[JsonObject]:
    """Two instances on each of two GPUs, and a whole one."""
    names = [f"{gpu}-mig-{part}" for gpu in GPUS[:2] for part in ("1g-10gb-6", "3g-40gb-0")]
    return [await cluster.new_claim(name) for name in (*names, GPUS[2])]


@pytest.mark.timeout(60)
async def test_killed_at_any_moment_of_its_work_it_leaves_nothing_half_done(
    plugin: Plugin, cluster: Cluster
) -> None:
    """Prepare and unprepare of five claims are cut off after 5 to 60 ms; afterwards both work, and nothing is left over."""
    for delay_s in (0.005, 0.02, 0.06):
        claims = await claims_of_all_sorts(cluster)
        for work in (plugin.prepare, plugin.unprepare):
            call = asyncio.create_task(work(*claims))
            await asyncio.sleep(delay_s)
            await plugin.stop(signal.SIGKILL)
            await asyncio.wait({call})
            assert call.exception() is None or isinstance(call.exception(), AioRpcError)
            await plugin.start()
            if work == plugin.prepare:
                answers = await plugin.prepare(*claims)
                assert {answer.error for answer in answers.values()} == {""}
                assert await plugin.prepare(*claims) == answers
                assert (len(plugin.instances()), len(plugin.records())) == (4, 5)
        answers = await plugin.unprepare(*claims)
        assert {answer.error for answer in answers.values()} == {""}
        assert plugin.leftovers() == []


async def test_a_restart_of_the_api_server_is_noticed(plugin: Plugin, cluster: Cluster) -> None:
    """Slices that went meanwhile are back soon after, and new claims are prepared."""
    port = int(cluster.server.url.rsplit(":", 1)[1])
    await cluster.server.stop()
    await cluster.api.delete(RESOURCE_SLICE, (await cluster.slices())[0]["metadata"]["name"])
    await cluster.server.start(port=port)
    await eventually(cluster.is_published)
    claim = await cluster.new_claim(GPUS[0])
    assert (await plugin.prepare(claim))[claim["metadata"]["uid"]].error == ""


async def test_an_api_server_that_never_answers_holds_up_nothing(
    idle: Plugin, cluster: Cluster
) -> None:
    """Replay and unprepare are served, and SIGTERM ends the process with 0 within seconds."""
    claim = await cluster.new_claim(GPUS[0])
    uid = claim["metadata"]["uid"]
    await idle.start()
    first = (await idle.prepare(claim))[uid]
    assert first.error == ""
    assert await idle.stop() == 0
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        idle.settings["server"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        await idle.start()
        assert (await idle.prepare(claim))[uid] == first
        assert (await idle.unprepare(claim))[uid].error == ""
        began = time.monotonic()
        assert await idle.stop() == 0
        assert time.monotonic() - began < 3
    assert not any(path.exists() for path in idle.sockets)


async def test_a_cdi_folder_that_cannot_be_written_fails_the_claim_only(
    idle: Plugin, cluster: Cluster
) -> None:
    """The error names the file and the fix; what was made for the claim is undone, and the plugin goes on."""
    idle.settings["cdi-dir"] = "/proc/sys/cdi"  # where not even root may make a folder
    await idle.start()
    await eventually(cluster.is_published)
    claim = await cluster.new_claim(f"{GPUS[0]}-mig-1g-10gb-6")
    error = (await idle.prepare(claim))[claim["metadata"]["uid"]].error
    assert "cannot write CDI file /proc/sys/cdi/" in error
    assert "the CDI folder must be writable" in error
    assert "\n" not in error
    assert idle.instances() == []
    assert await idle.stop() == 0
