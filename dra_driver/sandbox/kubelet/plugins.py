"""The DRA drivers that are registered, and the connections to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import grpc
import grpc.aio

from dra_driver.model.errors import ClaimError
from dra_driver.wire.dra_v1 import api_pb2, api_pb2_grpc

_Answer = TypeVar("_Answer")
_CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # else channels to one path share a connection
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


def dial(path: Path) -> grpc.aio.Channel:
    """A channel of its own to a unix socket, soon back after it was lost."""
    return grpc.aio.insecure_channel(f"unix:{path}", options=_CHANNEL_OPTIONS)


class Endpoint:
    """One instance of a driver: a single connection, used for all calls and re-established whenever it is lost."""

    def __init__(self, *, driver: str, path: Path) -> None:
        self.driver = driver
        self.path = path
        self._channel = dial(path)
        self._service: api_pb2_grpc.DRAPluginAsyncStub = api_pb2_grpc.DRAPluginStub(self._channel)

    def connected(self) -> bool:
        """Whether the driver is there. Asking also makes a lost connection come back."""
        state = self._channel.get_state(try_to_connect=True)
        return state is grpc.ChannelConnectivity.READY

    async def prepare(
        self, request: api_pb2.NodePrepareResourcesRequest, *, timeout_s: float
    ) -> api_pb2.NodePrepareResourcesResponse:
        """The driver's answer, or ClaimError."""
        return await self._answer(self._service.NodePrepareResources(request, timeout=timeout_s))

    async def unprepare(
        self, request: api_pb2.NodeUnprepareResourcesRequest, *, timeout_s: float
    ) -> api_pb2.NodeUnprepareResourcesResponse:
        """The driver's answer, or ClaimError."""
        return await self._answer(self._service.NodeUnprepareResources(request, timeout=timeout_s))

    async def close(self) -> None:
        """Cancel what runs and hang up."""
        await self._channel.close()

    async def _answer(self, call: Awaitable[_Answer]) -> _Answer:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            cause = f"{error.code().name}: {error.details()}"
            raise ClaimError(f"DRA driver {self.driver} at {self.path}: {cause}") from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # gRPC says "cancelled" for calls on a channel that is closed, too: the driver deregistered meanwhile.
            raise ClaimError(
                f"DRA driver {self.driver} at {self.path}: it deregistered during the call"
            ) from None


class Plugins:
    """All endpoints of all drivers; while a driver is upgraded it has two."""

    def __init__(self) -> None:
        self._endpoints: dict[str, list[Endpoint]] = {}

    @property
    def drivers(self) -> frozenset[str]:
        """Every driver that registered since the kubelet started, whether or not it is still there."""
        return frozenset(self._endpoints)

    def endpoint(self, driver: str) -> Endpoint:
        """Who gets the driver's calls: the newest endpoint that is connected, else the newest. Raises ClaimError."""
        newest_first = self._endpoints.get(driver, [])[::-1]
        if not newest_first:
            raise ClaimError(f"DRA driver {driver} is not registered: is its plugin running?")
        return next((one for one in newest_first if one.connected()), newest_first[0])

    def connected(self, driver: str) -> bool:
        """Whether any endpoint of the driver can be called. Asks all of them, so that all stay connected."""
        states = [endpoint.connected() for endpoint in self._endpoints.get(driver, [])]
        return any(states)

    def has(self, driver: str, path: Path) -> bool:
        """Whether this very endpoint is registered."""
        return any(endpoint.path == path for endpoint in self._endpoints.get(driver, []))

    @asynccontextmanager
    async def added(self, driver: str, path: Path) -> AsyncIterator[None]:
        """The driver has this endpoint while the block runs."""
        endpoint = Endpoint(driver=driver, path=path)
        self._endpoints.setdefault(driver, []).append(endpoint)
        try:
            yield
        finally:
            self._endpoints[driver].remove(endpoint)
            await endpoint.close()
