"""The pool of threads that gRPC starts in a process, kept from waking itself for nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def not_preempting() -> Iterator[None]:
    """Threads that begin in the block are SCHED_BATCH: one that is woken waits for the one that runs, instead of preempting it.

    Once a second gRPC's pool puts a timer into its queue, from a thread that will look there next, and wakes another thread. If
    that one preempts and takes the timer, the first one looks for it in vain, a dozen times in the next second. Measured with
    grpcio 1.85.1, idle, on two cores: 13 wake-ups a second and 0.08 % of a core; 6 and 0.035 % with this.

    Nothing is changed where somebody runs this thread by a policy of their own, or where the system refuses.
    """
    changed = _exchange(os.SCHED_OTHER, os.SCHED_BATCH)
    try:
        yield
    finally:
        if changed:
            _exchange(os.SCHED_BATCH, os.SCHED_OTHER)


def _exchange(policy: int, other: int) -> bool:
    """Whether this thread had the policy, and has the other one now."""
    try:
        if os.sched_getscheduler(0) != policy:
            return False
        os.sched_setscheduler(0, other, os.sched_param(0))
    except OSError:
        return False
    return True
