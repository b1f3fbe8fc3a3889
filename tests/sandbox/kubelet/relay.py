from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class Relay:
    """A socket before a driver's: it counts the connections, and cuts them when told to."""

    def __init__(self, path: Path, to: Path) -> None:
        self._path = path
        self._to = to
        self._open: set[asyncio.StreamWriter] = set()
        self.connections = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """It takes connections; afterwards there are none."""
        server = await asyncio.start_unix_server(self._relay, self._path)
        async with server:
            yield
            server.close()
            self.cut()

    def cut(self) -> None:
        """All connections break now."""
        for writer in self._open:
            writer.transport.abort()

    async def _relay(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.connections += 1
        far, forth = await asyncio.open_unix_connection(self._to)
        self._open |= {back, forth}
        await asyncio.gather(_pump(near, forth), _pump(far, back))
        self._open -= {back, forth}


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    sink.close()
