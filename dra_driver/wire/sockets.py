"""gRPC servers on unix sockets, safely.

gRPC itself replaces whatever socket is in its way: a second server steals a live socket without a word, and the first one
then unlinks its successor's. So the path is looked at first. Two processes that start at the very same moment are kept
apart by the plugin's instance lock, not here.
"""

from __future__ import annotations

import errno
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from dra_driver.model.errors import StartError

PATH_LIMIT_BYTES = 107
"""What fits into sockaddr_un; one less than the kernel's array, for its terminating zero."""

_RECEIVE_LIMIT_BYTES = 1 << 20  # a call of 64 claims has 10 KiB


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

    Running calls get `grace_s` to finish, then they are cancelled. Raises StartError where the folder is missing,
    the path is too long, somebody else serves there, or something that is no socket is in the way.
    """
    _check_path(path)
    _remove_stale_socket(path)
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", _RECEIVE_LIMIT_BYTES)])
    add_services(server)
    _bind(server, path)
    await server.start()
    try:
        yield
    finally:
        await server.stop(grace_s)


def _check_path(path: Path) -> None:
    length = len(bytes(path))
    if length > PATH_LIMIT_BYTES:
        raise StartError(
            f"socket {path}: the path has {length} bytes and sockets allow {PATH_LIMIT_BYTES}; choose a shorter folder"
        )
    if not path.parent.is_dir():
        raise StartError(
            f"socket {path}: folder {path.parent} does not exist; mount the kubelet's folder there or name the right one"
        )


def _bind(server: grpc.aio.Server, path: Path) -> None:
    try:
        server.add_insecure_port(f"unix:{path}")
        path.chmod(0o600)
    except (OSError, RuntimeError) as error:
        raise StartError(
            f"socket {path}: {error}; make its folder writable for this user"
        ) from error


def _remove_stale_socket(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartError(f"socket {path}: something that is no socket is in the way; remove it")
    if not _is_refused(path):
        raise StartError(
            f"socket {path}: another process serves it; stop that process or choose another folder"
        )
    path.unlink(missing_ok=True)


def _is_refused(path: Path) -> bool:
    """Whether nobody listens. Not blocking: a full backlog answers EAGAIN, and somebody owns it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        return probe.connect_ex(str(path)) in {errno.ECONNREFUSED, errno.ENOENT}
