"""Calls of the vendors' blocking libraries with a deadline, so that one that hangs blocks nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from dra_driver.model.errors import VendorError
from kubelet_plugin.gpu_threads import GpuThread, Round

T = TypeVar("T")

_TURN_S = 0.05
"""How long the keys of a round wait for one that does not answer."""


class Workers:
    """Runs calls in order per key (a GPU's PCI address, or a vendor's name for calls about all its GPUs).

    A call that takes longer than `timeout_s`, queueing included, fails with a retryable VendorError. It may still come to its end
    later: the caller must look at the hardware again. Until then every call of the key is refused at once, so that nothing piles up.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._workers: dict[str, GpuThread] = {}

    async def call(
        self,
        key: str,
        function: Callable[[], T],
        watch: Callable[[asyncio.Future[T]], None] | None = None,
    ) -> T:
        """The function's result. `watch` is given what is done when it has come back, however late; not where it is refused."""
        worker = self._worker(key)
        if worker.is_overdue:
            raise _refused(key)
        future = worker.start(function)
        if watch is not None:
            watch(future)
        done, _ = await asyncio.wait((future,), timeout=self._timeout_s)
        if done:
            return future.result()
        raise self._overdue(key)

    async def each(
        self, functions: Mapping[str, Callable[[], T]]
    ) -> AsyncIterator[tuple[str, T | Exception]]:
        """The result or the error of each key's function, soon after it has come; one key after the other while they answer.

        It costs hardly more than one call: one thread makes them all, and the event loop looks what has come when all have, or now and then.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._timeout_s
        waiting = set(functions)
        for key in functions:
            if self._worker(key).is_overdue:
                waiting.remove(key)
                yield key, _refused(key)
        asked = Round(
            {self._worker(key): (key, functions[key]) for key in functions if key in waiting}
        )
        try:
            while waiting:
                asked.go_on()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_TURN_S):
                        await asked.ended.wait()
                for key, outcome in asked.news():
                    waiting.remove(key)
                    yield key, outcome
                if loop.time() > deadline_s:
                    break
        finally:
            asked.go_on()  # a call that is expected and never made would look like one that hangs
        for key in functions:
            if key in waiting:
                yield key, self._overdue(key)

    def is_busy(self, key: str) -> bool:
        """Whether a call of the key is under way, timed out or not."""
        worker = self._workers.get(key)
        return worker is not None and worker.is_busy

    def _worker(self, key: str) -> GpuThread:
        if key not in self._workers:
            self._workers[key] = GpuThread(key)
        return self._workers[key]

    def _overdue(self, key: str) -> VendorError:
        self._workers[key].note_overdue()
        return VendorError(
            f"the driver of {key} did not answer within {self._timeout_s:g} s; look for it in the node's kernel log",
            retryable=True,
        )


def _refused(key: str) -> VendorError:
    return VendorError(
        f"the driver of {key} has not come back from an earlier call; look for it in the node's kernel log",
        retryable=True,
    )
