"""Locks by name that hold inside this process and between the two plugins of a rolling upgrade.

Between processes a name is one byte of a lock file, locked by the kernel (open file description locks, fcntl(2)): it costs a
system call, needs no file of its own, and is free again the moment its process dies.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path
from weakref import WeakValueDictionary

_FLOCK = struct.Struct("@hhqqi4x")
"""struct flock of 64-bit Linux: type, whence, start, length, pid (0 for these locks)."""


class NodeLocks:
    """`path` is the lock file. Names are hashed to 62 bits, so that two never share a byte in practice."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._inside: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def held(self, *names: str) -> AsyncIterator[None]:
        """Nobody else holds any of these while the block runs; taken in sorted order, so that no two wait for each other."""
        taken: list[tuple[str, asyncio.Lock]] = []
        try:
            for name in sorted(set(names)):
                lock = await self._take(name)
                taken.append((name, lock))
            yield
        finally:
            for name, lock in reversed(taken):
                self._set(name, fcntl.F_UNLCK, fcntl.F_OFD_SETLK)
                lock.release()

    def close(self) -> None:
        """Everything that is still held is free."""
        os.close(self._descriptor)

    async def _take(self, name: str) -> asyncio.Lock:
        lock = self._inside.setdefault(name, asyncio.Lock())
        await lock.acquire()
        try:
            if not self._try(name):
                await self._wait(name)
        except BaseException:
            lock.release()
            raise
        return lock

    def _try(self, name: str) -> bool:
        try:
            self._set(name, fcntl.F_WRLCK, fcntl.F_OFD_SETLK)
        except BlockingIOError:
            return False
        return True

    async def _wait(self, name: str) -> None:
        """Let a thread of its own wait in the kernel. Nobody can call it back: whoever is cancelled waits for it too.

        Otherwise the next one here would share the lock that this thread takes and then gives back. The other process
        holds its locks while hardware changes, and its calls have deadlines.
        """
        loop = asyncio.get_running_loop()
        taken = loop.create_future()

        def block() -> None:
            self._set(name, fcntl.F_WRLCK, fcntl.F_OFD_SETLKW)
            loop.call_soon_threadsafe(taken.set_result, None)

        threading.Thread(target=block, name=f"lock-{name}", daemon=True).start()
        cancelled = None
        while not taken.done():
            try:
                await asyncio.shield(taken)
            except asyncio.CancelledError as cancellation:
                cancelled = cancellation
        if cancelled is not None:
            self._set(name, fcntl.F_UNLCK, fcntl.F_OFD_SETLK)
            raise cancelled

    def _set(self, name: str, kind: int, command: int) -> None:
        start = int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) >> 2
        fcntl.fcntl(self._descriptor, command, _FLOCK.pack(kind, os.SEEK_SET, start, 1, 0))


def claim_lock(uid: str) -> str:
    """The name under which one works on a claim; taken before any GPU's."""
    return f"claim/{uid}"


def gpu_lock(address: str) -> str:
    """The name under which one changes a GPU."""
    return f"gpu/{address}"
