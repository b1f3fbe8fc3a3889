"""The API server as a whole: a store, its garbage collector, and HTTP in front of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from aiohttp import web

from dra_driver.model.errors import StartError
from dra_driver.sandbox.apiserver.collector import Collector
from dra_driver.sandbox.apiserver.gates import Gates
from dra_driver.sandbox.apiserver.http import HttpApi
from dra_driver.sandbox.apiserver.resources import Resources
from dra_driver.sandbox.apiserver.store import Store


class ApiServer:
    """A Kubernetes API server in memory. It may be stopped and started again: the store survives.

    `requests` counts what came over HTTP by (verb, plural). Anybody who can reach the address is an administrator.
    """

    def __init__(
        self,
        *,
        gates: Gates | None = None,
        version: str = "v1.37.1",
        history: int = 10_000,
        bookmark_period_s: float = 10.0,
    ) -> None:
        self.store = Store(history=history)
        self._resources = Resources(self.store, gates)
        self._http = HttpApi(self._resources, version=version, bookmark_period_s=bookmark_period_s)
        self._runner: web.AppRunner | None = None
        self._collection: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The base URL while the server runs; StartError otherwise."""
        if self._runner is None:
            raise StartError("API server is not running: start it before asking for its URL")
        host, port, *_ = self._runner.addresses[0]
        return f"http://{host}:{port}"

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        """How often each (verb, plural) was asked for."""
        return self._http.requests

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Serve, and return the base URL; port 0 means any free one. StartError if the port is taken."""
        runner = web.AppRunner(
            self._http.application(),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=1.0,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            raise StartError(f"API server cannot listen on {host}:{port}: {error}") from error
        self._runner = runner
        self._collection = asyncio.create_task(Collector(self._resources).run())
        return self.url

    async def stop(self) -> None:
        """End all watches, finish what is being answered, and free the port."""
        if self._runner is None or self._collection is None:
            return
        await self._runner.cleanup()
        self._runner = None
        self._collection.cancel()
        with suppress(asyncio.CancelledError):
            await self._collection
