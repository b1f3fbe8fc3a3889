"""Calls of blocking libraries: each key in its own thread, with a deadline, and none waits for another's."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from dra_driver.model.errors import VendorError
from kubelet_plugin.workers import Workers

KEYS = ("a", "b", "c", "d")


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    """What hangs waits for it; at the end nothing does any more."""
    over = threading.Event()
    yield over
    over.set()


async def outcomes(
    workers: Workers, functions: dict[str, Callable[[], Any]]
) -> list[tuple[str, Any]]:
    """In the order in which they came."""
    return [found async for found in workers.each(functions)]


async def until_idle(workers: Workers, key: str) -> None:
    async with asyncio.timeout(10):
        for _ in count():
            if not workers.is_busy(key):
                return
            await asyncio.sleep(0.005)


async def test_each_key_is_called_once_and_in_turn() -> None:
    """All in one thread while they answer, which is not the event loop's."""
    threads: list[int] = []
    found = await outcomes(
        Workers(timeout_s=5),
        dict.fromkeys(KEYS, lambda: threads.append(threading.get_ident())),
    )
    assert found == [(key, None) for key in KEYS]
    assert len(threads) == 4
    assert len({*threads, threading.get_ident()}) == 2


async def test_no_key_is_called_twice_at_a_time(hang: threading.Event) -> None:
    """A round's call comes behind one that is under way, and before one that comes later; the other keys do not wait for it."""
    workers, order = Workers(timeout_s=5), list[str]()

    def slow() -> None:
        hang.wait()
        order.append("a, first")

    first = asyncio.create_task(workers.call("a", slow))
    await asyncio.sleep(0.05)
    functions: dict[str, Callable[[], Any]] = {"a": lambda: order.append("a, round"), "b": int}
    asked = workers.each(functions)
    assert await anext(asked) == ("b", 0)
    last = asyncio.create_task(workers.call("a", lambda: order.append("a, last")))
    hang.set()
    assert await anext(asked) == ("a", None)
    await first
    await last
    assert order == ["a, first", "a, round", "a, last"]


async def test_all_answers_wake_the_event_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what makes asking many as cheap as asking one."""
    loop, woken = asyncio.get_running_loop(), [0]
    call_soon = loop.call_soon_threadsafe

    def wake(*args: Any) -> None:
        woken[0] += 1
        call_soon(*args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", wake)
    assert len(await outcomes(Workers(timeout_s=5), dict.fromkeys(KEYS, int))) == 4
    assert woken == [1]


async def test_an_error_is_its_keys_outcome_alone() -> None:
    """The others are called all the same."""
    odd = OSError(5, "odd")

    def fail() -> int:
        raise odd

    found = await outcomes(Workers(timeout_s=5), {"a": int, "b": fail, "c": int})
    assert found == [("a", 0), ("b", odd), ("c", 0)]


async def test_one_that_hangs_delays_no_other(hang: threading.Event) -> None:
    """The others' outcomes come first; its own is an error, and so is every further call until it has come back."""
    workers = Workers(timeout_s=0.5)
    found = await outcomes(workers, {"a": hang.wait, "b": int, "c": int})
    assert found[:2] == [("b", 0), ("c", 0)]
    assert "a did not answer within 0.5 s" in str(found[2][1])
    again = await outcomes(workers, {"a": int, "b": int})
    assert [key for key, _ in again] == ["a", "b"]
    assert "has not come back from an earlier call" in str(again[0][1])
    with pytest.raises(VendorError, match="has not come back"):
        await workers.call("a", int)
    hang.set()
    await until_idle(workers, "a")
    assert await outcomes(workers, {"a": int}) == [("a", 0)]


async def test_several_that_hang_delay_no_other(hang: threading.Event) -> None:
    """Also where they are asked one after the other."""
    hung = dict.fromkeys(("a", "b", "c"), hang.wait)
    found = await outcomes(Workers(timeout_s=1.0), {**hung, "d": int, "e": int})
    assert found[:2] == [("d", 0), ("e", 0)]
    assert {key for key, outcome in found if isinstance(outcome, VendorError)} == set(hung)


async def test_whom_nobody_asked_in_time_is_not_taken_for_one_that_hangs(
    hang: threading.Event,
) -> None:
    """The event loop stood still for longer than the deadline, a frozen process's say, while the first one hung."""
    workers = Workers(timeout_s=0.1)
    asked = asyncio.create_task(outcomes(workers, {"a": hang.wait, "b": int, "c": int}))
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 (that is what it is about)
    await asked
    await until_idle(workers, "b")
    await until_idle(workers, "c")
    assert await outcomes(workers, {"b": int, "c": int}) == [("b", 0), ("c", 0)]


async def test_a_call_under_way_counts_until_it_has_come_back(hang: threading.Event) -> None:
    """It is refused to nobody before its time is over: calls of a key run in order."""
    workers = Workers(timeout_s=5)
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
