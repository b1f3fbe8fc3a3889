"""Locks by name, inside a process and between two."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kubelet_plugin.locks import NodeLocks
from tests.kubelet_plugin.second_process import SecondProcess, second_process
from tests.limits import no_more_descriptors


@pytest.fixture
def locks(tmp_path: Path) -> Iterator[NodeLocks]:
    locks = NodeLocks(tmp_path / "locks")
    yield locks
    locks.close()


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[SecondProcess]:
    async with second_process(tmp_path) as process:
        yield process


class Waiting:
    """A task that wants locks, holds them until told, and says when it has them."""

    def __init__(self, locks: NodeLocks, *names: str) -> None:
        self.has_them = asyncio.Event()
        self.may_go = asyncio.Event()
        self.task = asyncio.create_task(self._hold(locks, names))

    async def _hold(self, locks: NodeLocks, names: tuple[str, ...]) -> None:
        async with locks.held(*names):
            self.has_them.set()
            await self.may_go.wait()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def is_free_for(other: SecondProcess, name: str) -> None:
    """The other process gets the lock, and gives it back."""
    assert await other.do("lock", name) == "done"
    assert await other.do("unlock") == "done"


async def test_a_name_is_held_once_inside_a_process(locks: NodeLocks) -> None:
    """The next one gets it when the first has given it back; other names are free."""
    first, second, apart = Waiting(locks, "a"), Waiting(locks, "a"), Waiting(locks, "b")
    await settle()
    assert (first.has_them.is_set(), second.has_them.is_set()) == (True, False)
    assert apart.has_them.is_set()
    first.may_go.set()
    await asyncio.wait_for(second.has_them.wait(), 5)
    for one in (second, apart):
        one.may_go.set()
    await asyncio.gather(first.task, second.task, apart.task)


async def test_a_name_is_held_once_between_processes(
    locks: NodeLocks, other: SecondProcess
) -> None:
    """Neither gets what the other holds; whoever waits gets it as soon as it is given back, the loop running meanwhile."""
    await other.do("lock", "a")
    mine = Waiting(locks, "a")
    apart = Waiting(locks, "b")
    await asyncio.wait_for(apart.has_them.wait(), 5)
    assert not mine.has_them.is_set()
    await other.do("unlock")
    await asyncio.wait_for(mine.has_them.wait(), 5)
    await other.tell("lock", "a")
    await is_blocked(other)
    mine.may_go.set()
    assert await other.answer() == "done"
    apart.may_go.set()
    await asyncio.gather(mine.task, apart.task)


async def is_blocked(other: SecondProcess) -> None:
    """It does not answer. That can only be seen by waiting a little; on a slow machine this proves less, and never fails."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(other.answer(), 0.2)


async def test_a_killed_process_holds_nothing(locks: NodeLocks, other: SecondProcess) -> None:
    """SIGKILL: whoever waits gets its locks at once."""
    await other.do("lock", "a", "b")
    mine = Waiting(locks, "a", "b")
    await settle()
    assert not mine.has_them.is_set()
    await other.kill()
    await asyncio.wait_for(mine.has_them.wait(), 5)
    mine.may_go.set()
    await mine.task


async def test_names_are_taken_in_one_order(locks: NodeLocks, other: SecondProcess) -> None:
    """However they are named: so no two ever wait for each other; while the second is waited for, the first is held."""
    await other.do("lock", "b")
    mine = Waiting(locks, "b", "a", "a")
    await settle()
    behind = Waiting(locks, "a")
    await settle()
    assert not behind.has_them.is_set()
    await other.do("unlock")
    mine.may_go.set()
    behind.may_go.set()
    await asyncio.wait_for(asyncio.gather(mine.task, behind.task), 5)


async def test_many_tasks_with_many_names_never_wait_for_each_other(locks: NodeLocks) -> None:
    """Every pair of four names, in both orders, wanted at once: all are served."""
    names = "abcd"
    wanted = [Waiting(locks, one, two) for one in names for two in names]
    for one in wanted:
        one.may_go.set()
    await asyncio.wait_for(asyncio.gather(*(one.task for one in wanted)), 10)


@pytest.mark.parametrize("name", ["a", "b"])
async def test_who_is_cancelled_while_waiting_leaves_nothing_locked(
    locks: NodeLocks, other: SecondProcess, name: str
) -> None:
    """At once, and neither the name that was waited for nor those taken before it, inside and between processes."""
    await other.do("lock", "b")
    mine = Waiting(locks, "a", "b")
    await settle()
    mine.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(mine.task, 5)
    await other.do("unlock")
    await is_free_for(other, name)
    again = Waiting(locks, name)
    await asyncio.wait_for(again.has_them.wait(), 5)
    again.may_go.set()
    await again.task


async def test_an_error_inside_gives_the_locks_back(locks: NodeLocks, other: SecondProcess) -> None:
    """Whatever happens in the block."""
    with pytest.raises(ValueError, match="oops"):
        async with locks.held("a"):
            raise ValueError("oops")
    await is_free_for(other, "a")


async def test_a_wait_that_was_given_up_is_there_for_the_next_one(
    locks: NodeLocks, other: SecondProcess
) -> None:
    """However many were cancelled, one thread waits for a name: whoever wants it then gets it, and gives it back."""
    await other.do("lock", "a")
    others = set(threading.enumerate())  # one that a former test has let go may not have ended yet
    for _ in range(5):
        mine = Waiting(locks, "a")
        await settle()
        mine.task.cancel()
        await asyncio.gather(mine.task, return_exceptions=True)
    waiting = [one for one in set(threading.enumerate()) - others if one.name == "lock-a"]
    assert len(waiting) == 1
    last = Waiting(locks, "a")
    await settle()
    assert not last.has_them.is_set()
    await other.do("unlock")
    await asyncio.wait_for(last.has_them.wait(), 5)
    await other.tell("lock", "a")
    await is_blocked(other)
    last.may_go.set()
    assert await other.answer() == "done"


async def test_a_process_ends_though_another_one_holds_what_it_waits_for(
    tmp_path: Path, other: SecondProcess
) -> None:
    """`asyncio.run` ends with a call that waits: no process hangs because of its sibling."""
    await other.do("lock", "a")
    async with second_process(tmp_path) as leaving:
        await leaving.do("lock", "b")
        await leaving.tell("lock", "a")
        await is_blocked(leaving)
        await asyncio.wait_for(leaving.interrupt(), 5)


async def test_who_cannot_wait_is_told(locks: NodeLocks, other: SecondProcess) -> None:
    """Without a descriptor to wait with: an error in place of a wait without end, and later all is well."""
    await other.do("lock", "b")
    with no_more_descriptors():
        mine = Waiting(locks, "a", "b")
        with pytest.raises(OSError, match="Too many open files"):
            await asyncio.wait_for(mine.task, 5)
    await is_free_for_all(locks, "a")
    await other.do("unlock")
    await is_free_for_all(locks, "b")


async def is_free_for_all(locks: NodeLocks, name: str) -> None:
    """This process gets the lock, and gives it back."""
    mine = Waiting(locks, name)
    mine.may_go.set()
    await asyncio.wait_for(mine.task, 5)


async def test_a_name_is_kept_from_other_processes_until_a_late_end(
    locks: NodeLocks, other: SecondProcess
) -> None:
    """Given back or not; inside this process it goes from hand to hand meanwhile."""
    late: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with locks.held("a"):
        locks.keep_until("a", late)
    await is_free_for_all(locks, "a")
    await other.tell("lock", "a")
    await is_blocked(other)
    late.set_result(None)
    assert await other.answer() == "done"
