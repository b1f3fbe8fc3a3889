"""Worker threads for the vendors' blocking libraries: one per GPU, so that one that hangs blocks nothing else.

Daemon threads of our own and not an executor, because an executor's blocked thread delays the interpreter's exit for ever.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from dra_driver.model.errors import VendorError

T = TypeVar("T")


class Workers:
    """Runs calls in order per key (a GPU's PCI address, or a vendor's name for calls about all its GPUs)."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._workers: dict[str, _Worker] = {}

    async def call(
        self,
        key: str,
        function: Callable[[], T],
        watch: Callable[[asyncio.Future[T]], None] | None = None,
    ) -> T:
        """The function's result; a retryable VendorError when it takes longer than the deadline, queueing included.

        A call that has timed out may still come to its end later: the caller must look at the hardware again. Until then
        every call of the key is refused at once, so that nothing piles up behind it. `watch` is given what is done when the
        function has come back, however late; it is not asked where the call is refused.
        """
        worker = self._workers.get(key)
        if worker is None:
            worker = self._workers[key] = _Worker(key)
        if worker.overdue:
            raise VendorError(
                f"the driver of {key} has not come back from an earlier call; look for it in the node's kernel log",
                retryable=True,
            )
        future = worker.start(function)
        if watch is not None:
            watch(future)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(future)
        except TimeoutError:
            worker.overdue.add(future)
            future.add_done_callback(worker.overdue.discard)
            raise VendorError(
                f"the driver of {key} did not answer within {self._timeout_s:g} s; look for it in the node's kernel log",
                retryable=True,
            ) from None

    def is_busy(self, key: str) -> bool:
        """Whether a call of the key is under way, timed out or not."""
        worker = self._workers.get(key)
        return worker is not None and worker.is_busy


class _Worker:
    """A thread and its queue. `overdue`: the calls that timed out and have not come to their end; for the event loop only."""

    def __init__(self, key: str) -> None:
        self.overdue: set[asyncio.Future[Any]] = set()
        self._started = 0  # counted by the event loop
        self._ended = 0  # counted by the thread
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        threading.Thread(target=self._serve, name=f"gpu-{key}", daemon=True).start()

    @property
    def is_busy(self) -> bool:
        """Whether a call is running or waits."""
        return self._started != self._ended

    def start(self, function: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            outcome: Callable[[], None]
            try:
                outcome = partial(future.set_result, function())
            except Exception as error:  # noqa: BLE001 (it is raised again where the caller waits)
                outcome = partial(future.set_exception, error)
            self._ended += 1
            if not loop.is_closed():
                loop.call_soon_threadsafe(outcome)

        self._started += 1
        self._queue.put(run)
        return future

    def _serve(self) -> None:
        while True:
            self._queue.get()()
