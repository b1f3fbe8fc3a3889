"""How long the kubelet waits, and how it tries again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dra_driver.model.errors import DraError


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """The defaults are the real kubelet's (1.34 and newer), but for those that keep a demonstration short.

    These are `reconcile_s`, 60 s there, `retry_max_s`, minutes there, and `termination_s`, what containers take to stop.
    """

    dial_s: float = 10.0
    get_info_s: float = 1.0
    notify_s: float = 5.0
    prepare_s: float = 45.0
    unprepare_s: float = 45.0
    wipe_after_s: float = 30.0
    health_retry_s: float = 5.0
    poll_s: float = 0.1
    retry_s: float = 0.5
    retry_max_s: float = 10.0
    reconcile_s: float = 5.0
    termination_s: float = 0.1

    async def persist(
        self, work: Callable[[], Awaitable[None]], *, failed: Callable[[DraError], Awaitable[None]]
    ) -> None:
        """Do the work until it succeeds: after each failure call `failed` and wait, longer each time up to a limit."""
        delay_s = self.retry_s
        while True:
            try:
                await work()
            except DraError as error:
                await failed(error)
            else:
                return
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, self.retry_max_s)
