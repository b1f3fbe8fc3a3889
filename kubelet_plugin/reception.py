"""The registration socket, served by a thread of its own: the kubelet gives GetInfo one second, however busy the node is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from dra_driver.model.errors import StartError
from dra_driver.wire.sockets import serving
from kubelet_plugin.registration import Registration


@asynccontextmanager
async def receiving(path: Path, registration: Registration) -> AsyncIterator[None]:
    """The registration answers at `path` while the block runs. StartError where nobody can listen there.

    On the loop that serves claims, a call would stand behind whatever is ready there, at each of its stages. Where the thread
    ends by itself the block is cancelled and a group with a StartError raised: without a socket the kubelet forgets this plugin.
    """
    loop = asyncio.get_running_loop()
    started: asyncio.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = loop.create_future()
    ended: asyncio.Future[BaseException | None] = loop.create_future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with serving(path, registration.add_to, grace_s=1.0):
            loop.call_soon_threadsafe(started.set_result, (asyncio.get_running_loop(), stop))
            await stop.wait()

    def run() -> None:
        error = None
        try:
            asyncio.run(serve())
        except BaseException as caught:  # noqa: BLE001 (raised again where it is waited for)
            error = caught
        loop.call_soon_threadsafe(ended.set_result, error)

    threading.Thread(target=run, name="registration", daemon=True).start()
    either: set[asyncio.Future[Any]] = {started, ended}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not started.done():
        raise _failure(path, ended.result())
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(_fail_with(path, ended))
        try:
            yield
        finally:
            watch.cancel()
            theirs, stop = started.result()
            with suppress(RuntimeError):  # their loop is closed already
                theirs.call_soon_threadsafe(stop.set)
            await ended


async def _fail_with(path: Path, ended: asyncio.Future[BaseException | None]) -> None:
    raise _failure(path, await asyncio.shield(ended))


def _failure(path: Path, error: BaseException | None) -> StartError:
    if isinstance(error, StartError):
        return error
    failure = StartError(
        f"socket {path}: its thread has ended ({error!r}); start this process again"
    )
    failure.__cause__ = error
    return failure
