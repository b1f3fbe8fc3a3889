"""The threads in which the vendors' blocking libraries are called, one per GPU.

Daemon threads of our own and not an executor, because an executor's blocked thread delays the interpreter's exit for ever.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from kubelet_plugin.loop_calls import call_soon

T = TypeVar("T")


class GpuThread:
    """A thread and its queue; no two calls of the same GPU run at the same time."""

    def __init__(self, key: str) -> None:
        self._is_late = False
        self._expected = 0  # counted by the event loop
        self._ended = 0  # counted by whoever has the turn
        self._turn = threading.Lock()
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        threading.Thread(target=self._serve, name=f"gpu-{key}", daemon=True).start()

    @property
    def is_busy(self) -> bool:
        """Whether a call is running or waits."""
        return self._expected != self._ended

    @property
    def is_overdue(self) -> bool:
        """Whether a call timed out, and calls have been under way ever since."""
        self._is_late = self._is_late and self.is_busy
        return self._is_late

    def note_overdue(self) -> None:
        """A call that is under way timed out."""
        self._is_late = True

    def start(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """The function's result once it has come back."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        self.put(self.expect(function, partial(call_soon, loop, _settle, future)))
        return future

    def expect(
        self, function: Callable[[], T], tell: Callable[[T | Exception], None]
    ) -> Callable[[], None]:
        """Work that must be put or done then; `tell` gets the outcome in the thread."""
        self._expected += 1

        def work() -> None:
            outcome: T | Exception
            try:
                outcome = function()
            except Exception as error:  # noqa: BLE001 (it is raised again where the caller waits)
                outcome = error
            self._ended += 1
            tell(outcome)

        return work

    def put(self, work: Callable[[], None]) -> None:
        """The thread does it behind what it has to do already. From any thread."""
        self._queue.put(work)

    def do(self, work: Callable[[], None]) -> None:
        """Do it here and now, unless the thread is busy: then it does it. From any thread."""
        if not self._turn.acquire(blocking=False):
            self.put(work)
            return
        try:
            work()
        finally:
            self._turn.release()

    def _serve(self) -> None:
        while True:
            work = self._queue.get()
            with self._turn:
                work()


class Round(Generic[T]):
    """A call for each of several GPUs, in one thread: to wake a thread costs ten times what a short call does. `ended` is set when all have come back."""

    def __init__(self, calls: Mapping[GpuThread, tuple[str, Callable[[], T]]]) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()
        self._outcomes: SimpleQueue[tuple[str, T | Exception]] = SimpleQueue()
        self._missing = count(len(calls) - 1, -1)  # its next is one step for all threads
        self._next = deque(
            (thread, thread.expect(function, partial(self._told, key)))
            for thread, (key, function) in calls.items()
        )

    def go_on(self) -> None:
        """A thread makes the calls that were not made, one after the other; another one, where an earlier thread hangs in one."""
        if self._next:
            threading.Thread(target=self._make, name="gpu-round", daemon=True).start()

    def news(self) -> list[tuple[str, T | Exception]]:
        """What came since this was last asked."""
        return [self._outcomes.get_nowait() for _ in range(self._outcomes.qsize())]

    def _make(self) -> None:
        while self._next:
            try:
                thread, work = self._next.popleft()
            except IndexError:  # another thread has taken the last one
                return
            thread.do(work)

    def _told(self, key: str, outcome: T | Exception) -> None:
        self._outcomes.put((key, outcome))
        if next(self._missing) == 0:
            call_soon(self._loop, self.ended.set)


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    if not isinstance(outcome, Exception):
        future.set_result(outcome)
        return
    future.set_exception(outcome)
    future.exception()  # where nobody waits any more, asyncio would complain that nobody took it
