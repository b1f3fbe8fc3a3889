"""An event loop whose time passes only when nothing else can happen: ten minutes take milliseconds, and each run is the same.

What would run in a thread runs on the loop, with as many pauses around it as the test's dice say; so every order in which
calls could meet is a matter of the dice alone.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from dra_driver.model.errors import VendorError

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Waits for nobody: where the loop would sleep, its time passes instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "nothing can ever happen again: the program hangs"
            self.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """`dice` decide how often others get their turn before and after what would run in a thread."""

    def __init__(self, dice: random.Random | None = None) -> None:
        self._virtual = _Selector()
        self.dice = dice
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds."""
        return self._virtual.now

    def run_in_executor(  # type: ignore[override] # the stub wants a future of any kind
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Task[T]:
        """At some moment from now on, when nothing else runs."""

        async def run() -> T:
            await self.pause()
            result = func(*args)
            await self.pause()
            return result

        return self.create_task(run())

    async def pause(self) -> None:
        """Let others have some turns."""
        for _ in range(self.dice.choice((0, 0, 1, 2, 5)) if self.dice else 0):
            await asyncio.sleep(0)


def run(main: Coroutine[Any, Any, T], dice: random.Random | None = None) -> T:
    """The result of the program, in virtual time."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(dice)) as runner:
        return runner.run(main)


class LoopClock:
    """The loop's own time."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class VirtualWorkers:
    """Instead of the plugin's worker threads: calls of a GPU in order, with their deadline, in virtual time."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def call(
        self,
        key: str,
        function: Callable[[], T],
        watch: Callable[[asyncio.Future[T]], None] | None = None,
    ) -> T:
        work = asyncio.ensure_future(self._call(key, function))
        if watch is not None:
            watch(work)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(work)
        except TimeoutError:
            work.add_done_callback(lambda task: task.cancelled() or task.exception())
            raise VendorError(f"the driver of {key} did not answer", retryable=True) from None

    async def each(
        self, functions: Mapping[str, Callable[[], T]]
    ) -> AsyncIterator[tuple[str, T | Exception]]:
        for key, function in functions.items():
            try:
                yield key, await self.call(key, function)
            except Exception as error:  # noqa: BLE001 (an outcome, as the real ones have it)
                yield key, error

    async def _call(self, key: str, function: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        async with self._turns[key]:
            await loop.pause()
            result = function()
            await loop.pause()
            return result
