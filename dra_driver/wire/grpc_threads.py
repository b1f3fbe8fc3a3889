"""gRPC's own threads, of which those of its pool are kept from waking each other for nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc.aio


def new_server(options: Sequence[tuple[str, Any]]) -> grpc.aio.Server:
    """A server. The first server or channel of a process starts gRPC's threads; if it is this one, its pool does not preempt.

    Once a second the pool puts its timers into its own queue, from a thread that will look there next, and wakes another one. If
    that one preempts and takes them, the first one looks for them in vain, a dozen times in the next second. Measured with
    grpcio 1.85.1, idle, on two cores: 13 wake-ups a second and 0.08 % of a core; 6 and 0.035 % with this. The price: on a node
    whose CPUs are all busy, a call waits for the end of somebody's turn, a few milliseconds, before it is read.

    The thread that hands calls on to the event loop is not of the pool, and is started before it.
    """
    grpc.aio.init_grpc_aio()
    try:
        with not_preempting():
            return grpc.aio.server(options=options)
    finally:
        grpc.aio.shutdown_grpc_aio()  # the server holds it now


@contextmanager
def not_preempting() -> Iterator[None]:
    """Threads that begin in the block are SCHED_BATCH: when they wake they wait for whoever runs, and preempt nobody.

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
