"""Files that appear whole, writes that happen whole or not at all, and errors that name the file and the fix."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dra_driver.model.errors import RecordError, RecordNewer, RecordOutdated, StorageError

_FIXES = {
    errno.EACCES: "let this process write there",
    errno.EDQUOT: "raise the quota, or free space",
    errno.EEXIST: "the claim is recorded already: forget it before it begins anew",
    errno.ENOENT: "the claim is not recorded: begin it first",
    errno.ENOSPC: "free space on its filesystem",
    errno.EOPNOTSUPP: "put dataDir on a filesystem like ext4, xfs or tmpfs",
    errno.EROFS: "remount its filesystem writable",
}


def entries(folder: Path) -> list[Path]:
    """What lies in the folder; nothing where there is no folder."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def create(
    path: Path, text: bytes, size_bytes: int, sync: Callable[[int], None] | None = None
) -> None:
    """The file is there, with the text and NULs up to its size; FileExistsError where one was there before.

    It has no name until it is whole, so a process that dies on the way leaves nothing, and none can meet another's half.
    """
    with opened(path.parent, os.O_WRONLY | os.O_TMPFILE) as descriptor:
        os.posix_fallocate(descriptor, 0, size_bytes)
        _write(descriptor, text, 0)
        if sync:
            sync(descriptor)
        source = f"/proc/self/fd/{descriptor}"
        os.link(
            source, path, src_dir_fd=descriptor
        )  # without a dir_fd, Python links the symbolic link


def add(descriptor: int, text: bytes, end: int, size_bytes: int) -> None:
    """The text stands at `end`, and the file is at least as large as said; after an OSError it is as it was before."""
    former_bytes = os.fstat(descriptor).st_size
    try:
        if size_bytes > former_bytes:
            os.posix_fallocate(descriptor, 0, size_bytes)
        _write(descriptor, text, end)
    except OSError:
        with suppress(OSError):  # nobody may read later what the caller is told has failed
            os.ftruncate(descriptor, former_bytes)
            _write(descriptor, bytes(former_bytes - end), end)
        raise


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """The file's descriptor, for the block."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path, verb: str) -> Iterator[None]:
    """Failures inside become RecordErrors that name the file and the fix."""
    try:
        yield
    except (RecordNewer, RecordOutdated) as error:
        raise type(error)(f"journal {path}: {error}") from error
    except RecordError as error:
        raise RecordError(f"journal {path}: {error}") from error
    except OSError as error:
        fix = _FIXES.get(error.errno or 0, "look for disk errors in the kernel log")
        raise StorageError(f"cannot {verb} journal {path}: {error.strerror}; {fix}") from error


def _write(descriptor: int, data: bytes, offset: int) -> None:
    written = os.pwrite(descriptor, data, offset)
    if written != len(data):
        raise OSError(errno.EIO, f"only {written} of {len(data)} bytes were written")
