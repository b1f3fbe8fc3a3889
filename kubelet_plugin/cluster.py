"""The API server's client and the Events written through it, once they are there.

Importing the client takes longer than everything else at a start, and only what needs it waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from dra_driver.kube.endpoint import Endpoint
from dra_driver.kube.events import EventRecorder, EventSource
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import JsonObject, KubeApi

if TYPE_CHECKING:
    from dra_driver.kube.rest import RestApi

EARLY_EVENTS = 100


class Cluster:
    """Hands the client to whoever waits for it, and is a `ports.Recorder` from the first moment on.

    Make it inside a running event loop. Of what is recorded before there is a client, the last 100 Events are kept.
    """

    def __init__(self, endpoint: Endpoint, *, node: str) -> None:
        self._endpoint = endpoint
        self._source = EventSource(component=DRIVER_NAME, host=node)
        self._api: asyncio.Future[KubeApi] = asyncio.get_running_loop().create_future()
        self._early: deque[tuple[JsonObject, Literal["Normal", "Warning"], str, str]]
        self._early = deque(maxlen=EARLY_EVENTS)
        self._recorder: EventRecorder | None = None

    async def api(self) -> KubeApi:
        """The client, as soon as `connected` has been entered."""
        return await asyncio.shield(self._api)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[KubeApi]:
        """There is a client while the block runs; what asks it later is told that it is Unavailable."""
        rest_api = await asyncio.to_thread(_import_client)
        async with rest_api(self._endpoint, component="kubelet-plugin") as client:
            self._api.set_result(client)
            yield client

    async def write_events(self) -> None:
        """Write what was recorded and what will be, until cancelled."""
        self._recorder = EventRecorder(await self.api(), self._source)
        for regarding, level, reason, message in self._early:
            self._recorder.event(regarding, level=level, reason=reason, message=message)
        self._early.clear()
        await self._recorder.run()

    def event(
        self,
        regarding: JsonObject,
        *,
        level: Literal["Normal", "Warning"],
        reason: str,
        message: str,
    ) -> None:
        """Queue an Event on the object (apiVersion, kind, name, namespace, uid)."""
        if self._recorder is None:
            self._early.append((regarding, level, reason, message))
        else:
            self._recorder.event(regarding, level=level, reason=reason, message=message)


def _import_client() -> type[RestApi]:
    from dra_driver.kube.rest import RestApi  # noqa: PLC0415 (see the module's docstring)

    return RestApi
