"""A byte of a lock file, locked by the kernel for this process (open file description locks, fcntl(2)).

It costs a system call, needs no file of its own, and is free again the moment its process dies.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import threading
from hashlib import blake2b

from kubelet_plugin.loop_calls import call_soon

_FLOCK = struct.Struct("@hhqqi4x")
"""struct flock of 64-bit Linux: type, whence, start, length, pid (0 for these locks)."""


class ByteLock:
    """A name's byte, hashed to 62 bits so that two never share one in practice, for all its users in this process.

    `turn` is the order among those who do something under it; a user of the byte may outlive its turn.
    """

    def __init__(self, file: int, name: str) -> None:
        self.turn = asyncio.Lock()
        self._users = 0
        self._arrival: asyncio.Future[None] | None = None  # while it is waited for
        self._file = file
        self._name = name
        self._descriptor: int | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Whether another process has not given it back yet to this one, which waits for it."""
        return self._arrival is not None

    def use(self) -> None:
        """One user more: it stays with this process if it is there, or as soon as it comes, until all have given it back."""
        self._users += 1

    async def come(self) -> None:
        """This process has it. The caller uses it. Raises OSError where the kernel cannot give it."""
        if self._descriptor is None and self._arrival is None:
            try:
                self._set(self._file, fcntl.F_WRLCK, fcntl.F_OFD_SETLK)
                self._descriptor = self._file
            except BlockingIOError:
                self._wait()
        if self._arrival is not None:
            await asyncio.shield(self._arrival)

    def give_back(self) -> None:
        """One user less; with the last one, other processes may have it."""
        self._users -= 1
        if self._users == 0:
            self.free()

    def free(self) -> None:
        """This process has it no more."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor == self._file:
            self._set(descriptor, fcntl.F_UNLCK, fcntl.F_OFD_SETLK)
        elif descriptor is not None:
            os.close(descriptor)

    def _wait(self) -> None:
        """Let a thread of its own wait in the kernel, with a descriptor of its own.

        Nobody can call it back: it goes on for the next who wants the name when all that did are cancelled. What it gets with
        its own descriptor is nobody else's by accident.
        """
        loop = asyncio.get_running_loop()
        descriptor = os.open(f"/proc/self/fd/{self._file}", os.O_RDWR | os.O_CLOEXEC)
        self._arrival = loop.create_future()

        def block() -> None:
            error = None
            try:
                self._set(descriptor, fcntl.F_WRLCK, fcntl.F_OFD_SETLKW)
            except OSError as refused:
                error = refused
            if error is not None:
                os.close(descriptor)
            call_soon(loop, self._arrive, descriptor, error)  # a process that ends holds nothing

        threading.Thread(target=block, name=f"lock-{self._name}", daemon=True).start()

    def _arrive(self, descriptor: int, error: OSError | None) -> None:
        arrival, self._arrival = self._arrival, None
        assert arrival is not None
        if error is None:
            self._descriptor = descriptor
            arrival.set_result(None)
            if self._users == 0:
                self.free()
        else:
            arrival.set_exception(error)
            arrival.exception()  # perhaps nobody waits any more

    def _set(self, descriptor: int, kind: int, command: int) -> None:
        start = int.from_bytes(blake2b(self._name.encode(), digest_size=8).digest()) >> 2
        fcntl.fcntl(descriptor, command, _FLOCK.pack(kind, os.SEEK_SET, start, 1, 0))
