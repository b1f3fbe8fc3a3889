"""Long work on the loop: short work passes it, its steps keep their order, and it is cancelled as any other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from dra_driver.model.errors import ClaimError
from kubelet_plugin.slow_lane import PATIENCE, SlowLane, end_step

T = TypeVar("T")

CLAIMS = 64
HOPS = 10  # turns of the loop that a call of gRPC takes


class Road:
    """A slow lane, and the steps that were done in it: (coroutine, step)."""

    def __init__(self) -> None:
        self.lane = SlowLane()
        self.done: list[tuple[int, int]] = []

    def start(self, function: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        async def execute() -> T:
            return await self.lane.drive(function())

        return asyncio.create_task(execute())

    def work(self, number: int, steps: int = 3) -> asyncio.Task[int]:
        async def execute() -> int:
            for step in range(steps):
                self.done.append((number, step))
                await end_step()
            return number

        return self.start(execute)


async def test_a_short_call_passes_the_steps_of_all_claims() -> None:
    """Without a lane it would wait for one step of each claim at every one of its hops."""
    road = Road()
    claims = [road.work(number) for number in range(CLAIMS)]

    for _ in range(HOPS):
        await asyncio.sleep(0)
    passed = len(road.done)

    assert passed <= 1, "a step came between the hops of a call"
    assert await asyncio.gather(*claims) == list(range(CLAIMS))


async def test_the_oldest_comes_first() -> None:
    """One after the other is done: in turn, the first would not be done before the last."""
    road = Road()

    await asyncio.gather(*(road.work(number) for number in range(4)))

    assert road.done == [(number, step) for number in range(4) for step in range(3)]


async def test_whoever_waits_for_the_cpu_gets_it_before_each_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As long as another claim waits too; the last one's steps are done at once."""
    road = Road()
    done_before: list[int] = []
    monkeypatch.setattr("os.sched_yield", lambda: done_before.append(len(road.done)))

    await asyncio.gather(road.work(0), road.work(1))

    assert done_before == [0, 1, 2, 3, 3], "also before what the first does at its end, at 3"


async def test_a_system_that_does_not_yield_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PermissionError

    monkeypatch.setattr("os.sched_yield", refuse)
    road = Road()

    async with asyncio.timeout(10):
        await asyncio.gather(road.work(0), road.work(1))
    assert len(road.done) == 6


async def test_short_work_without_end_does_not_keep_a_step_from_being_done() -> None:
    road, loop = Road(), asyncio.get_running_loop()
    turns = 0

    def again() -> None:
        nonlocal turns
        turns += 1
        if not task.done():
            loop.call_soon(again)

    task = road.work(0)
    loop.call_soon(again)

    async with asyncio.timeout(10):
        await task
    assert turns <= 4 * (PATIENCE + 2)


async def test_what_it_raises_is_the_result() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ClaimError("no such device")

    with pytest.raises(ClaimError, match="no such device"):
        await Road().start(fail)


async def test_what_it_waits_for_may_fail() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def mend() -> str:
        try:
            await future
        except ClaimError as error:
            return str(error)
        return ""

    task = Road().start(mend)
    await asyncio.sleep(0)
    future.set_exception(ClaimError("gone"))

    assert await task == "gone"


@pytest.mark.parametrize("hops", range(2 * HOPS))
async def test_a_cancellation_reaches_it_wherever_it_is(hops: int) -> None:
    """Waiting for its turn or for something else; the others keep their turns."""
    road, began, cleaned = Road(), asyncio.Event(), asyncio.Event()

    async def clean_up() -> None:
        began.set()
        try:
            for _ in range(CLAIMS):
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    others = [road.work(number) for number in range(4)]
    task = road.start(clean_up)
    for _ in range(hops):
        await asyncio.sleep(0)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned.is_set() == began.is_set()
    assert await asyncio.gather(*others) == list(range(4))


async def test_a_timeout_inside_it_ends_its_wait() -> None:
    async def patient() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "late"
        return "early"

    assert await Road().start(patient) == "late"


async def test_a_cancellation_during_its_turn_comes_where_it_waited() -> None:
    """What it waited for has come, but it has not gone on yet: as any task, it hears of the cancellation there."""
    road, began, event = Road(), asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        began.set()
        try:
            await event.wait()
        except asyncio.CancelledError:
            return "cancelled"
        return "came"

    task = road.start(wait)
    await began.wait()
    event.set()
    await asyncio.sleep(0)  # it is woken, and
    await asyncio.sleep(0)  # waits for its turn behind this test
    assert road.lane._is_watching
    task.cancel()
    assert await task == "cancelled"
