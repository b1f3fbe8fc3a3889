"""Calls of blocking libraries: each key in its own thread, with a deadline, and none waits for another's."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any
from unittest.mock import patch

import pytest

from dra_driver.model.errors import VendorError
from kubelet_plugin.workers import Workers
from tests.passing_time import pass_time

KEYS = ("a", "b", "c", "d")
TIMEOUT_S = 30.0


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    """What hangs waits for it; at the end nothing does any more."""
    over = threading.Event()
    yield over
    over.set()


@pytest.fixture
def workers() -> Workers:
    return Workers(timeout_s=TIMEOUT_S)


@pytest.fixture
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, every key answers in its turn of a round."""
    monkeypatch.setattr("kubelet_plugin.workers._TURN_S", TIMEOUT_S)


async def outcomes(
    workers: Workers, functions: dict[str, Callable[[], Any]], *, hung: int = 0
) -> list[tuple[str, Any]]:
    """In the order in which they came; the time of those that are `hung` is over when all others have."""
    found = []
    async for one in workers.each(functions):
        found.append(one)
        if hung and len(found) == len(functions) - hung:
            pass_time(TIMEOUT_S)
    return found


async def until_idle(workers: Workers, key: str) -> None:
    async with asyncio.timeout(10):
        for _ in count():
            if not workers.is_busy(key):
                return
            await asyncio.sleep(0.005)


@pytest.mark.usefixtures("_unhurried")
async def test_each_key_is_called_once_and_in_turn(workers: Workers) -> None:
    """All in one thread while they answer, which is not the event loop's."""
    threads: list[int] = []
    found = await outcomes(
        workers, dict.fromkeys(KEYS, lambda: threads.append(threading.get_ident()))
    )
    assert found == [(key, None) for key in KEYS]
    assert len(threads) == 4
    assert len({*threads, threading.get_ident()}) == 2


async def test_no_key_is_called_twice_at_a_time(workers: Workers, hang: threading.Event) -> None:
    """A round's call comes behind one that is under way, and before one that comes later; the other keys do not wait for it."""
    begun, order = threading.Event(), list[str]()

    def slow() -> None:
        begun.set()
        hang.wait()
        order.append("a, first")

    first = asyncio.create_task(workers.call("a", slow))
    assert await asyncio.to_thread(begun.wait, 10)
    functions: dict[str, Callable[[], Any]] = {"a": lambda: order.append("a, round"), "b": int}
    asked = workers.each(functions)
    assert await anext(asked) == ("b", 0)
    last = asyncio.create_task(workers.call("a", lambda: order.append("a, last")))
    hang.set()
    assert await anext(asked) == ("a", None)
    await first
    await last
    assert order == ["a, first", "a, round", "a, last"]


@pytest.mark.usefixtures("_unhurried")
async def test_all_answers_wake_the_event_loop_once(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is what makes asking many as cheap as asking one."""
    loop, woken = asyncio.get_running_loop(), [0]
    call_soon = loop.call_soon_threadsafe

    def wake(*args: Any) -> None:
        woken[0] += 1
        call_soon(*args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", wake)
    assert len(await outcomes(workers, dict.fromkeys(KEYS, int))) == 4
    assert woken == [1]


@pytest.mark.usefixtures("_unhurried")
async def test_an_error_is_its_keys_outcome_alone(workers: Workers) -> None:
    """The others are called all the same."""
    odd = OSError(5, "odd")

    def fail() -> int:
        raise odd

    found = await outcomes(workers, {"a": int, "b": fail, "c": int})
    assert found == [("a", 0), ("b", odd), ("c", 0)]


async def test_one_that_hangs_delays_no_other(workers: Workers, hang: threading.Event) -> None:
    """The others' outcomes come first; its own is an error, and so is every further call until it has come back."""
    found = await outcomes(workers, {"a": hang.wait, "b": int, "c": int}, hung=1)
    assert sorted(found[:2]) == [("b", 0), ("c", 0)]
    assert "a did not answer within 30 s" in str(found[2][1])
    again = await outcomes(workers, {"a": int, "b": int})
    assert [key for key, _ in again] == ["a", "b"]
    assert "has not come back from an earlier call" in str(again[0][1])
    with pytest.raises(VendorError, match="has not come back"):
        await workers.call("a", int)
    hang.set()
    await until_idle(workers, "a")
    assert await outcomes(workers, {"a": int}) == [("a", 0)]


async def test_several_that_hang_delay_no_other(workers: Workers, hang: threading.Event) -> None:
    """Also where they are asked one after the other."""
    hung = dict.fromkeys(("a", "b", "c"), hang.wait)
    found = await outcomes(workers, {**hung, "d": int, "e": int}, hung=3)
    assert sorted(found[:2]) == [("d", 0), ("e", 0)]
    assert {key for key, outcome in found if isinstance(outcome, VendorError)} == set(hung)


async def test_whom_nobody_asked_in_time_is_not_taken_for_one_that_hangs(
    workers: Workers, hang: threading.Event
) -> None:
    """The event loop stood still for longer than the deadline, a frozen process's say, while the first one hung."""
    asked = asyncio.create_task(outcomes(workers, {"a": hang.wait, "b": int, "c": int}))
    await asyncio.sleep(0)
    pass_time(2 * TIMEOUT_S)
    await asked
    await until_idle(workers, "b")
    await until_idle(workers, "c")
    assert dict(await outcomes(workers, {"b": int, "c": int})) == {"b": 0, "c": 0}


async def test_a_call_under_way_counts_until_it_has_come_back(
    workers: Workers, hang: threading.Event
) -> None:
    """It is refused to nobody before its time is over: calls of a key run in order."""
    first = asyncio.create_task(workers.call("a", hang.wait))
    second = asyncio.create_task(workers.call("a", int))
    await asyncio.sleep(0)
    assert workers.is_busy("a")
    assert not workers.is_busy("b")
    hang.set()
    assert (await first, await second) == (True, 0)
    assert not workers.is_busy("a")


async def test_a_late_error_troubles_nobody(hang: threading.Event) -> None:
    """Who has given up does not take it, and asyncio must not complain in the log."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
    workers = Workers(timeout_s=0.05)

    def fail() -> None:
        hang.wait()
        raise OSError(5, "late")

    with pytest.raises(VendorError, match="did not answer"):
        await workers.call("a", fail)
    hang.set()
    await until_idle(workers, "a")
    await asyncio.sleep(0.05)
    gc.collect()
    assert complaints == []


@pytest.mark.parametrize("way", ["call", "each"])
def test_a_call_that_outlives_its_loop_ends_in_silence(way: str, hang: threading.Event) -> None:
    """Also where its thread saw the loop open a moment before: the process ends, and nobody waits for the outcome."""
    begun, lives_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        hang.wait()

    async def leave() -> None:
        workers = Workers(timeout_s=TIMEOUT_S)
        call = workers.call("a", slow) if way == "call" else outcomes(workers, {"a": slow})
        waiting = asyncio.ensure_future(call)
        assert await asyncio.to_thread(begun.wait, 10)
        behind = asyncio.ensure_future(workers.call("a", lives_on.set))
        await asyncio.sleep(0)
        waiting.cancel()
        behind.cancel()
        await asyncio.wait([waiting, behind])

    others = set(threading.enumerate())
    with asyncio.Runner() as runner, patch.object(runner.get_loop(), "is_closed", lambda: False):
        runner.run(leave())
        runner.close()
        hang.set()
        for thread in set(threading.enumerate()) - others:
            if thread.name == "gpu-round":
                thread.join(10)
        assert lives_on.wait(10)
