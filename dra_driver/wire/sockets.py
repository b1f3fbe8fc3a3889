"""gRPC servers on unix sockets, safely.

gRPC itself replaces whatever socket is in its way, and removes whatever has its socket's name when it stops. So the path is looked
at first, and a server binds to a hidden name that becomes the real one when it serves: what gRPC removes is never there, and
what we remove is known by its inode. Two processes that start at the very same moment are kept apart by the plugin's
instance lock, not here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import structlog

from dra_driver.model.errors import StartError
from dra_driver.ports import SystemClock, beat
from dra_driver.wire.grpc_threads import new_server
from dra_driver.wire.socket_files import check_path, clear_path, inode

_RECEIVE_LIMIT_BYTES = 1 << 20  # a call of 64 claims has 10 KiB
WATCH_S = 6.0
"""How soon a lost socket is noticed."""
_SERVERS = 4  # that take calls at once; each costs a descriptor and its connections
_FINISH_S = 60.0  # no call of a kubelet takes longer, but the one that watches health, and that is made again

_log = structlog.get_logger()


def create_private_folder(folder: Path) -> None:
    """The folder exists and only its owner may enter: access to the sockets in it is all the authentication there is."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise StartError(
            f"folder {folder}: {error.strerror}; give dataDir a path that this user may create"
        ) from error


@asynccontextmanager
async def serving(
    path: Path, add_services: Callable[[grpc.aio.Server], None], *, grace_s: float = 0.0
) -> AsyncIterator[None]:
    """The services answer on the socket at `path` (mode 0600) while the block runs; the socket is gone afterwards.

    A socket that somebody removes meanwhile is there again six seconds later. When the block ends, running calls get
    `grace_s` to finish, then they are cancelled. Raises StartError where the folder is missing, the path is too long,
    somebody else serves there, or something that is no socket is in the way.
    """
    served = _ServedSocket(path, add_services)
    await served.open()
    watch = asyncio.create_task(served.keep())
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await served.close(grace_s)


class _ServedSocket:
    """One path and the servers that were started for it, of which the last one has it.

    Those before it still serve who is connected to them. gRPC cancels a call that crosses its notice of a stop, so only the
    oldest of more than four is stopped.
    """

    def __init__(self, path: Path, add_services: Callable[[grpc.aio.Server], None]) -> None:
        self._path = path
        self._add_services = add_services
        self._inode: int | None = None
        self._opened = 0
        self._servers: list[grpc.aio.Server] = []
        self._finishing: dict[grpc.aio.Server, asyncio.Task[None]] = {}

    async def open(self) -> None:
        """A new server has the path; the oldest of too many takes no new calls and finishes those that it has."""
        check_path(self._path)
        clear_path(self._path)
        options = [("grpc.max_receive_message_length", _RECEIVE_LIMIT_BYTES)]
        server = new_server(options)
        self._add_services(server)
        try:
            await self._publish(server)
        except BaseException:
            await server.stop(None)
            raise
        self._servers.append(server)
        if len(self._servers) > _SERVERS:
            oldest = self._servers.pop(0)
            self._finishing[oldest] = asyncio.create_task(self._finish(oldest))

    async def keep(self) -> None:
        """Open again whenever the socket is gone; where that fails, say so once and go on trying."""
        clock, said = SystemClock(), ""
        while True:
            await beat(clock, WATCH_S)
            if inode(self._path) == self._inode:
                continue
            try:
                await self.open()
            except (StartError, OSError) as error:
                if str(error) != said:
                    _log.error("the socket is lost", path=str(self._path), error=str(error))
                said = str(error)
            else:
                said = ""
                _log.warning("the socket was removed, and is there again", path=str(self._path))

    async def close(self, grace_s: float) -> None:
        """Remove the socket, unless it is somebody else's by now; then let all calls finish."""
        if inode(self._path) == self._inode:
            self._path.unlink(missing_ok=True)
        servers = (*self._finishing, *self._servers)
        await asyncio.gather(*(server.stop(grace_s) for server in servers))
        await asyncio.gather(*self._finishing.values())

    async def _publish(self, server: grpc.aio.Server) -> None:
        """It serves under a hidden name, and then under the real one.

        The hidden name is as long as the real one, another one each time, and begins with a dot: the kubelet ignores it.
        """
        self._opened += 1
        hidden = self._path.with_name(f".{self._opened % 10}{self._path.name[2:]}")
        try:
            server.add_insecure_port(f"unix:{hidden}")
            hidden.chmod(0o600)
            await server.start()
            self._inode = inode(hidden)
            hidden.rename(self._path)
        except (OSError, RuntimeError) as error:
            raise StartError(
                f"socket {self._path}: {error}; make its folder writable for this user"
            ) from error

    async def _finish(self, server: grpc.aio.Server) -> None:
        await server.stop(_FINISH_S)
        del self._finishing[server]
