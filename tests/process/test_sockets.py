from __future__ import annotations

import os
import signal
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import grpc.aio
import pytest

from dra_driver.model.names import DRIVER_NAME
from dra_driver.wire.registration_v1 import api_pb2, api_pb2_grpc
from tests.process.conftest import Cluster, Plugin, eventually

UID = "3f0e6a52-7a0f-4a7e-9d4e-1c2b3a4d5e6f"


async def endpoint(registration: Path) -> str:
    """Where the plugin says that it serves."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"unix:{registration}", options) as channel:
        stub = api_pb2_grpc.RegistrationStub(channel)
        return (await stub.GetInfo(api_pb2.InfoRequest(), timeout=5)).endpoint


async def test_removed_sockets_come_back_and_serve(plugin: Plugin, cluster: Cluster) -> None:
    """Both, in a process that never restarts: the kubelet finds it again, and pods do not hang."""
    registration, service = plugin.sockets
    for path in plugin.sockets:
        path.unlink()
    await eventually(lambda: registration.exists() and service.exists())
    assert await endpoint(registration) == str(service)
    claim = await cluster.new_claim("gpu-0000-1b-00-0")
    answer = (await plugin.prepare(claim))[claim["metadata"]["uid"]]
    assert not answer.error
    assert await plugin.stop() == 0
    assert not [*plugin.registry_dir.iterdir(), *plugin.data_dir.glob("*.sock")]


async def test_a_pod_s_plugin_has_sockets_of_its_own(idle: Plugin) -> None:
    """Named by the pod; what a killed predecessor of any name left behind is gone by then."""
    await idle.start()
    await idle.stop(signal.SIGKILL)
    assert all(path.exists() for path in idle.sockets)
    idle.settings["pod-uid"] = UID
    await idle.start()
    registration = idle.registry_dir / f"{DRIVER_NAME}-{UID}-reg.sock"
    assert list(idle.registry_dir.iterdir()) == [registration]
    assert await endpoint(registration) == str(idle.data_dir / f"dra-{UID}.sock")
    assert list(idle.data_dir.glob("*.sock")) == [idle.data_dir / f"dra-{UID}.sock"]


@pytest.mark.skipif(os.sched_getscheduler(0) != os.SCHED_OTHER, reason="somebody chose a policy")
async def test_grpc_s_pool_preempts_nobody(plugin: Plugin) -> None:
    """Or an idle plugin would wake twice as often; all other threads are run as ever."""
    assert plugin.process is not None
    found = policies(plugin.process.pid)
    pool = found.pop("event_engine") | found.pop("lifeguard")
    assert pool == {os.SCHED_BATCH}
    assert set().union(*found.values()) == {os.SCHED_OTHER}


def policies(pid: int) -> dict[str, set[int]]:
    """By which the kernel runs a process's threads, by their names; gRPC gives its own names of their own."""
    found: dict[str, set[int]] = defaultdict(set)
    for name in Path(f"/proc/{pid}/task").glob("*/comm"):
        with suppress(FileNotFoundError, ProcessLookupError):  # one that ends meanwhile
            found[name.read_text().strip()].add(os.sched_getscheduler(int(name.parent.name)))
    return found
