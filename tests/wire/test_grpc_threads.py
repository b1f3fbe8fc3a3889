"""By which policy the kernel runs the threads that a block begins."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from dra_driver.wire.grpc_threads import not_preempting

pytestmark = pytest.mark.skipif(
    os.sched_getscheduler(0) != os.SCHED_OTHER, reason="somebody chose a policy for the tests"
)


def in_a_thread(work: Callable[[], int]) -> int:
    """What `work` returns in a thread of its own."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def policy() -> int:
    """This thread's."""
    return os.sched_getscheduler(0)


def test_what_begins_in_the_block_does_not_preempt() -> None:
    """Who begins it, and what begins afterwards, does as ever."""
    with not_preempting():
        assert in_a_thread(policy) == os.SCHED_BATCH
    assert policy() == os.SCHED_OTHER
    assert in_a_thread(policy) == os.SCHED_OTHER


@pytest.mark.parametrize("chosen", [os.SCHED_IDLE, os.SCHED_BATCH])
def test_a_policy_that_somebody_chose_stays(chosen: int) -> None:
    """In the block and after it, also where it is the block's own."""

    def work() -> int:
        os.sched_setscheduler(0, chosen, os.sched_param(0))
        with not_preempting():
            assert in_a_thread(policy) == chosen
        return policy()

    assert in_a_thread(work) == chosen


def test_a_system_that_refuses_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox without this system call runs the threads as ever."""

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refused)
    with not_preempting():
        assert in_a_thread(policy) == os.SCHED_OTHER
