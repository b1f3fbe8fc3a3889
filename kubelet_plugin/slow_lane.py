"""Long work on the event loop, step by step: whatever is short goes first.

A call of gRPC takes ten turns of the loop, short as they are. If each waited for a step of every claim under way, a node that prepares
64 claims would need as many times longer to say who it is, and to take the next call.
"""

from __future__ import annotations

import asyncio
import os
import types
from collections.abc import Coroutine, Generator
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 16
"""So many turns of the loop a step waits for short work that does not end, and is done then."""


async def end_step() -> None:
    """For a coroutine in the lane: what follows is a step of its own, so that nobody waits for both. Elsewhere, a turn of the loop."""
    await asyncio.sleep(0)


class SlowLane:
    """Coroutines whose steps (what they do between two waits) are done one at a time, those of the oldest first, when nothing else is ready or `PATIENCE` is over.

    In turn they would all end late, and all reach a step that needs a thread at the same time. One lane for a loop: two would each
    take the other for short work.
    """

    def __init__(self) -> None:
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._is_watching = False
        self._turns = 0

    @types.coroutine
    def drive(self, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, None, T]:
        """The coroutine's result. What it waits for may be long over when it goes on; an error or a cancellation reaches it at once.

        So a cancellation may well come when the wait is over already, and `asyncio.wait_for` of Python 3.11 loses it then: use `asyncio.timeout`.
        """
        number, error = next(self._numbers), None
        while True:
            try:
                if error is None and self._must_wait():
                    yield from self._turn(number)
            except BaseException as came:  # noqa: BLE001 - the coroutine's to deal with
                error = came
            try:
                awaited = coroutine.send(None) if error is None else coroutine.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                error = None
            try:
                yield awaited
            except BaseException as came:  # noqa: BLE001 - the coroutine's to deal with
                error = came
            awaited = None  # an error that it holds would hold this frame

    def _must_wait(self) -> bool:
        return self._is_watching or not _is_quiet(asyncio.get_running_loop())

    def _turn(self, number: int) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        turn = self._waiting[number] = loop.create_future()
        if not self._is_watching:
            self._is_watching = True
            loop.call_soon(self._watch, loop)
        return turn

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called in each turn of the loop as long as somebody waits."""
        self._turns += 1
        if _is_quiet(loop) or self._turns >= PATIENCE:
            self._turns = 0
            _yield_cpu()
            self._admit_next()
        self._is_watching = bool(self._waiting)
        if self._is_watching:
            loop.call_soon(self._watch, loop)

    def _admit_next(self) -> None:
        while self._waiting:
            turn = self._waiting.pop(min(self._waiting))
            if not turn.done():  # its task was cancelled
                turn.set_result(None)
                return


def _is_quiet(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether nothing else is ready. No public way says so; on a loop that has another queue there is one step in each turn."""
    return not getattr(loop, "_ready", ())


def _yield_cpu() -> None:
    """To whoever waits for this CPU: gRPC's pool above all, which does not preempt (`wire/grpc_threads.py`) and may have a call to hand over."""
    with suppress(OSError):
        os.sched_yield()
