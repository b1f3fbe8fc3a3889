"""The threads in which the vendors' blocking libraries are called, one per GPU.

Daemon threads of our own and not an executor, because an executor's blocked thread delays the interpreter's exit for ever.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class GpuThread:
    """A thread and its queue."""

    def __init__(self, key: str) -> None:
        self._is_late = False
        self._expected = 0  # counted by the event loop
        self._ended = 0  # counted by the thread
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

        def tell(outcome: T | Exception) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, future, outcome)

        self.put(self.expect(function, tell))
        return future

    def expect(
        self, function: Callable[[], T], tell: Callable[[T | Exception], None]
    ) -> Callable[[], None]:
        """Work for `put`, which must be given it; `tell` gets the outcome in the thread."""
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

    def _serve(self) -> None:
        while True:
            self._queue.get()()


class Round(Generic[T]):
    """Calls of several threads, of which each lets the next one go on when it ends."""

    def __init__(self, calls: Mapping[GpuThread, tuple[str, Callable[[], T]]]) -> None:
        self._outcomes: SimpleQueue[tuple[str, T | Exception]] = SimpleQueue()
        self._next = deque(
            (thread, thread.expect(function, partial(self._told, key)))
            for thread, (key, function) in calls.items()
        )

    def go_on(self) -> None:
        """The next one is called, if there is one. From any thread."""
        try:
            thread, work = self._next.popleft()
        except IndexError:
            return
        thread.put(work)

    def go_on_with_all(self) -> None:
        """Nobody waits for the one before any more."""
        for _ in range(len(self._next)):
            self.go_on()

    def news(self) -> list[tuple[str, T | Exception]]:
        """What came since this was last asked."""
        return [self._outcomes.get_nowait() for _ in range(self._outcomes.qsize())]

    def _told(self, key: str, outcome: T | Exception) -> None:
        self._outcomes.put((key, outcome))
        self.go_on()


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    if not isinstance(outcome, Exception):
        future.set_result(outcome)
        return
    future.set_exception(outcome)
    future.exception()  # where nobody waits any more, asyncio would complain that nobody took it
