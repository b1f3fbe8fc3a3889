"""Locks by name that hold inside this process and between the two plugins of a rolling upgrade.

Between processes a name is one byte of a lock file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from kubelet_plugin.byte_lock import ByteLock


class NodeLocks:
    """`path` is the lock file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._bytes: WeakValueDictionary[str, ByteLock] = WeakValueDictionary()

    @asynccontextmanager
    async def held(self, *names: str) -> AsyncIterator[None]:
        """Nobody else holds any of these while the block runs; taken in sorted order, so that no two wait for each other.

        Raises OSError where the kernel cannot give any.
        """
        taken: list[ByteLock] = []
        try:
            for name in sorted(set(names)):
                taken.append(await self._take(name))  # noqa: PERF401 (what was taken before an error is given back)
            yield
        finally:
            for byte in reversed(taken):
                byte.give_back()
                byte.turn.release()

    def is_elsewhere(self, name: str) -> bool:
        """Whether another process has not given the name back yet that somebody here wants, or has ceased to wait for."""
        byte = self._bytes.get(name)
        return byte is not None and byte.is_elsewhere

    def keep_until(self, name: str, ended: asyncio.Future[Any]) -> None:
        """Other processes do not get the name, which the caller holds, before that has ended, even if it is given back earlier.

        Inside this process the name goes from one to the next as ever.
        """
        byte = self._bytes[name]
        byte.use()
        ended.add_done_callback(lambda _: byte.give_back())

    def close(self) -> None:
        """Everything that is still held is free."""
        for byte in self._bytes.values():
            byte.free()
        os.close(self._file)

    async def _take(self, name: str) -> ByteLock:
        byte = self._bytes.setdefault(name, ByteLock(self._file, name))
        await byte.turn.acquire()
        byte.use()
        try:
            await byte.come()
        except BaseException:
            byte.give_back()
            byte.turn.release()
            raise
        return byte


def claim_lock(uid: str) -> str:
    """The name under which one works on a claim; taken before any GPU's."""
    return f"claim/{uid}"


def gpu_lock(address: str) -> str:
    """The name under which one changes a GPU."""
    return f"gpu/{address}"
