"""`/metrics`, `/healthz` and `/readyz` over plain HTTP.

Whoever reaches the address may read them, so they name no claim, pod or user. No request has a side effect.

Import this late: aiohttp.web takes 10 MiB and 0.1 s, of which 1.6 MiB are left beside the API server's client, which needs
the rest of aiohttp too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import web

from dra_driver.model.errors import StartError
from dra_driver.observe.series import CONTENT_TYPE

_KEEP_ALIVE_S = 75.0
_STOP_S = 1.0

_Handler: TypeAlias = Callable[[web.Request], Awaitable[web.Response]]


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold for a probe to say yes: each part by name, with what is wrong with it, or an empty text."""

    parts: Mapping[str, str]

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.parts.values())

    def text(self) -> str:
        """A line for each part."""
        return "".join(f"{part}: {problem or 'ok'}\n" for part, problem in self.parts.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """What the pages say, asked at each request on the event loop: it must not block.

    `health`: does not hold where only a new process would help; `readiness`: whether all of the work is done now.
    """

    metrics: Callable[[], str]
    health: Callable[[], Condition]
    readiness: Callable[[], Condition]


@asynccontextmanager
async def serving_pages(pages: Pages, address: str) -> AsyncIterator[tuple[str, int]]:
    """Served at `host:port` while inside; yields where, as port 0 takes a free one.

    StartError where nobody can listen there.
    """
    app = web.Application()
    app.router.add_get("/metrics", _showing(pages.metrics))
    app.router.add_get("/healthz", _judging(pages.health))
    app.router.add_get("/readyz", _judging(pages.readiness))
    runner = web.AppRunner(
        app, access_log=None, keepalive_timeout=_KEEP_ALIVE_S, shutdown_timeout=_STOP_S
    )
    await runner.setup()
    try:
        await _listen(runner, address)
        host, port = runner.addresses[0][:2]
        yield host, port
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        await web.TCPSite(runner, host.strip("[]"), int(port)).start()
    except OSError as error:
        raise StartError(
            f"metrics address {address}: {error.strerror or error}; give --metrics-address (metricsAddress) another one, or off"
        ) from error


def _showing(page: Callable[[], str]) -> _Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=page().encode(), headers={"Content-Type": CONTENT_TYPE})

    return answer


def _judging(condition: Callable[[], Condition]) -> _Handler:
    async def answer(_: web.Request) -> web.Response:
        now = condition()
        return web.Response(text=now.text(), status=200 if now.holds else 503)

    return answer
