"""How many processes have come to share a data folder: a number in memory that all of them share, so that reading it costs nothing."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path

_COUNT = struct.Struct("=Q")


class Arrivals:
    """The number as this process sees it; it only grows, also where somebody removed its file meanwhile."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "arrivals"
        self._inode = 0
        self._memory: mmap | None = None

    def count(self) -> int | None:
        """The same number as long as nobody came; None where that cannot be told, as the file is another one or none."""
        try:
            is_shared = self._path.stat().st_ino == self._inode
        except OSError:
            return None
        return _number(self._memory) if is_shared else None

    @contextmanager
    def joining(self) -> Iterator[None]:
        """One process at a time is in such a block; it is counted when that ends well. Raises OSError, also on a full disk."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.posix_fallocate(descriptor, 0, _COUNT.size)  # memory over a hole would be SIGBUS
            memory = mmap(descriptor, _COUNT.size)
            yield
            _COUNT.pack_into(memory, 0, max(_number(self._memory), _number(memory)) + 1)
            self._memory, self._inode = memory, os.fstat(descriptor).st_ino
        finally:
            fcntl.flock(
                descriptor, fcntl.LOCK_UN
            )  # closing is not enough: the memory keeps the file open
            os.close(descriptor)


def _number(memory: mmap | None) -> int:
    number: int = 0 if memory is None else _COUNT.unpack(memory)[0]
    return number
