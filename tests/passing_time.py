"""Deadlines pass when a test says so: nobody waits for them, and no slow machine meets them too early."""

from __future__ import annotations

import asyncio


def pass_time(seconds: float) -> None:
    """The running loop's clock says that much more from now on: what was due meanwhile is due now."""
    loop = asyncio.get_running_loop()
    time = loop.time
    setattr(loop, "time", lambda: time() + seconds)  # noqa: B010 (a method)
