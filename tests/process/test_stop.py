"""A plugin that is told to stop ends in the time that it was given, whatever its callers do."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.process.conftest import Cluster, Plugin, eventually

DEVICE = "gpu-0000-1b-00-0"


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"])
async def test_a_client_that_does_not_hang_up_is_left_alone(plugin: Plugin, said: bytes) -> None:
    """One that has said nothing, or that HTTP/2 begins: gRPC would wait for it as for a call, and that may take 20 s."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(plugin.sockets[1]))
        client.sendall(said)
        await asyncio.sleep(0.2)
        assert await plugin.stop() == 0


async def test_a_call_that_does_not_end_gets_its_time_once(idle: Plugin, cluster: Cluster) -> None:
    """And not once more when its connection is closed."""
    idle.settings["stop-timeout-s"] = "6"
    await idle.start()
    async with waiting_for_a_device(idle, cluster):
        began_s = time.monotonic()
        assert await idle.stop() == 0
        assert time.monotonic() - began_s > 6


@asynccontextmanager
async def waiting_for_a_device(plugin: Plugin, cluster: Cluster) -> AsyncIterator[None]:
    """A claim is being prepared all the while, because another one keeps its device."""
    holder, waiter = [await cluster.new_claim(DEVICE) for _ in range(2)]
    await plugin.prepare(holder)
    call = asyncio.create_task(plugin.prepare(waiter))
    uid = waiter["metadata"]["uid"]
    await eventually(lambda: re.search(f"waiting .*{uid}", plugin.log) is not None)
    yield
    await asyncio.wait([call])
    assert call.exception() is not None
