"""Waiting for what another process does in its own time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dra_driver.model.kinds import Kind

SERVICE_ACCOUNT = Kind(
    group="", version="v1", kind="ServiceAccount", plural="serviceaccounts", namespaced=True
)


async def eventually(
    reached: Callable[[], Awaitable[bool] | bool], *, within_s: float = 30.0
) -> None:
    """Returns as soon as it is so; fails when it never is."""
    async with asyncio.timeout(within_s):
        while True:
            answer = reached()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.05)
