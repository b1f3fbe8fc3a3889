"""What stands at a socket's path: nobody's leftover, somebody's living socket, or something else."""

from __future__ import annotations

import errno
import socket
import stat
from pathlib import Path

import structlog

from dra_driver.model.errors import StartError

PATH_LIMIT_BYTES = 107
"""What fits into sockaddr_un; one less than the kernel's array, for its terminating zero."""

_log = structlog.get_logger()


def check_path(path: Path) -> None:
    """A socket can be made here, or StartError says why not."""
    length = len(bytes(path))
    if length > PATH_LIMIT_BYTES:
        raise StartError(
            f"socket {path}: the path has {length} bytes and sockets allow {PATH_LIMIT_BYTES}; choose a shorter folder"
        )
    if not path.parent.is_dir():
        raise StartError(
            f"socket {path}: folder {path.parent} does not exist; mount the kubelet's folder there or name the right one"
        )


def clear_path(path: Path) -> None:
    """Nothing stands here any more. Raises StartError for anything but a dead socket, which is left alone."""
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


def remove_dead_sockets(folder: Path, *patterns: str) -> None:
    """Sockets of these names on which nobody listens are gone; whatever else is there stays.

    A killed process leaves its sockets behind, and a kubelet that tries such a one lets the others wait.
    """
    for path in (path for pattern in patterns for path in sorted(folder.glob(pattern))):
        try:
            if stat.S_ISSOCK(path.lstat().st_mode) and _is_refused(path):
                path.unlink(missing_ok=True)
                _log.info("removed a dead socket", path=str(path))
        except OSError as error:
            _log.warning("socket not looked at", path=str(path), error=str(error))


def inode(path: Path) -> int | None:
    """What tells this very socket from another one of its name, as long as it is served; None where there is nothing."""
    try:
        return path.lstat().st_ino
    except OSError:
        return None


def _is_refused(path: Path) -> bool:
    """Whether nobody listens. Not blocking: a full backlog answers EAGAIN, and somebody owns it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        return probe.connect_ex(str(path)) in {errno.ECONNREFUSED, errno.ENOENT}
