"""The registration socket, served by a thread of its own: the kubelet gives GetInfo one second, however busy the node is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dra_driver.wire.sockets import serving
from kubelet_plugin.registration import Registration


@asynccontextmanager
async def receiving(path: Path, registration: Registration) -> AsyncIterator[None]:
    """The registration answers at `path` while the block runs. StartError where nobody can listen there.

    On the loop that serves claims, a call would stand behind whatever is ready there, at each of its stages.
    """
    loop = asyncio.get_running_loop()
    started: asyncio.Future[None] = loop.create_future()
    ended = asyncio.Event()
    stops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        async with serving(path, registration.add_to, grace_s=1.0):
            stops.append((asyncio.get_running_loop(), stop))
            loop.call_soon_threadsafe(started.set_result, None)
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except Exception as error:  # noqa: BLE001 (raised again where it is waited for)
            loop.call_soon_threadsafe(started.set_exception, error)
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=run, name="registration", daemon=True).start()
    await started
    try:
        yield
    finally:
        theirs, stop = stops[0]
        theirs.call_soon_threadsafe(stop.set)
        await ended.wait()
