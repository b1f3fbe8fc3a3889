"""Worker threads for the vendors' blocking libraries: one per GPU, so that one that hangs blocks nothing else.

Daemon threads of our own and not an executor, because an executor's blocked thread delays the interpreter's exit for ever.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from dra_driver.model.errors import VendorError

T = TypeVar("T")


class Workers:
    """Runs calls in order per key (a GPU's PCI address, or a vendor's name for calls about all its GPUs)."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._queues: dict[str, SimpleQueue[Callable[[], None]]] = {}

    async def call(self, key: str, function: Callable[[], T]) -> T:
        """The function's result; a retryable VendorError when it takes longer than the deadline, queueing included.

        A call that has timed out may still come to its end later: the caller must look at the hardware again.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue(key).put(lambda: _run(function, future, loop))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await future
        except TimeoutError:
            raise VendorError(
                f"the driver of {key} did not answer within {self._timeout_s:g} s; look for it in the node's kernel log",
                retryable=True,
            ) from None

    def _queue(self, key: str) -> SimpleQueue[Callable[[], None]]:
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = SimpleQueue()
            threading.Thread(target=_serve, args=(queue,), name=f"gpu-{key}", daemon=True).start()
        return queue


def _serve(queue: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        queue.get()()


def _run(
    function: Callable[[], T], future: asyncio.Future[T], loop: asyncio.AbstractEventLoop
) -> None:
    outcome: Callable[[], None]
    try:
        outcome = partial(future.set_result, function())
    except Exception as error:  # noqa: BLE001 (it is raised again where the caller waits)
        outcome = partial(future.set_exception, error)

    def settle() -> None:
        if not future.done():
            outcome()

    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)
