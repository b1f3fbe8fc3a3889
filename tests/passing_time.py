"""Deadlines pass when a test says so: nobody waits for them, and no slow machine meets them too early.

Those of the running loop, which asyncio and aiohttp keep; `time.monotonic` and the deadlines that gRPC keeps stay as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class AheadClock:
    """A clock, and how much more has passed by it."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return self._time() + self.ahead_s


def pass_time(seconds: float) -> None:
    """The running loop's clock says that much more from now on: what was due meanwhile is due now."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    if not isinstance(clock, AheadClock):
        clock = AheadClock(clock)
        setattr(loop, "time", clock)  # noqa: B010 (a method)
    clock.ahead_s += seconds
