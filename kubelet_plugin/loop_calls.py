"""Word from other threads to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def call_soon(
    loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any
) -> None:
    """The loop calls it soon, unless the loop is closed: then the process ends, and nobody waits for it. From any thread.

    The loop may close at any moment, so there is no use in asking first whether it is.
    """
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)
