"""The API server's client and the Events written through it, once they are there.

Importing the client takes longer than everything else at a start, and only what needs it waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dra_driver.kube.endpoint import Endpoint
from dra_driver.kube.events import EventRecorder, EventSource
from dra_driver.model.names import DRIVER_NAME
from dra_driver.observe.deferred import DeferredRecorder
from dra_driver.ports import KubeApi

if TYPE_CHECKING:
    from dra_driver.kube.rest import RestApi


class Cluster:
    """Hands the client to whoever waits for it. Make it inside a running event loop.

    `events` takes Events from the first moment on. `on_answer` is told verb and status of each request.
    """

    def __init__(
        self, endpoint: Endpoint, *, node: str, on_answer: Callable[[str, int], None]
    ) -> None:
        self.events = DeferredRecorder()
        self._endpoint = endpoint
        self._source = EventSource(component=DRIVER_NAME, host=node)
        self._on_answer = on_answer
        self._api: asyncio.Future[KubeApi] = asyncio.get_running_loop().create_future()

    async def api(self) -> KubeApi:
        """The client, as soon as `connected` has been entered."""
        return await asyncio.shield(self._api)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[KubeApi]:
        """There is a client while the block runs; what asks it later is told that it is Unavailable."""
        rest_api = await asyncio.to_thread(_import_client)
        async with rest_api(
            self._endpoint, component="kubelet-plugin", on_answer=self._on_answer
        ) as client:
            self._api.set_result(client)
            yield client

    async def write_events(self) -> None:
        """Write what was said and what will be, until cancelled."""
        recorder = EventRecorder(await self.api(), self._source)
        self.events.connect(recorder)
        await recorder.run()


def _import_client() -> type[RestApi]:
    from dra_driver.kube.rest import RestApi  # noqa: PLC0415 (see the module's docstring)

    return RestApi
