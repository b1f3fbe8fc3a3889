"""One instance of a driver, called in the version that it prefers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import grpc
import grpc.aio

from dra_driver.model.errors import ClaimError
from dra_driver.wire.dra_v1 import api_pb2
from dra_driver.wire.dra_v1beta1 import api_pb2 as v1beta1_pb2
from dra_driver.wire.health_v1 import api_pb2 as health_pb2

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


def _without_shares(data: bytes) -> api_pb2.NodePrepareResourcesResponse:
    """A v1beta1 answer, as v1: that version has no field for a share, whatever a driver sends there."""
    answer = v1beta1_pb2.NodePrepareResourcesResponse.FromString(data)
    answer.DiscardUnknownFields()
    return api_pb2.NodePrepareResourcesResponse.FromString(answer.SerializeToString())


_Decode = Callable[[bytes], api_pb2.NodePrepareResourcesResponse]
_DRA_SERVICES: Final[Mapping[str, tuple[str, _Decode]]] = {
    "v1.DRAPlugin": (
        "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin",
        api_pb2.NodePrepareResourcesResponse.FromString,
    ),
    "v1beta1.DRAPlugin": ("k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin", _without_shares),
}
"""What a plugin may offer, the name that gRPC knows it by, and how its answer is read."""


def dra_service(offered: Iterable[str]) -> str | None:
    """The first service of the plugin's list that a kubelet calls."""
    return next((service for service in offered if service in _DRA_SERVICES), None)


class Endpoint:
    """A single connection, used for all calls and for the health stream, and re-established whenever it is lost."""

    def __init__(self, *, driver: str, path: Path, service: str) -> None:
        self.driver = driver
        self.path = path
        self._channel = dial(path)
        name, decode = _DRA_SERVICES[service]
        self._prepare = self._channel.unary_unary(
            f"/{name}/NodePrepareResources",
            request_serializer=api_pb2.NodePrepareResourcesRequest.SerializeToString,
            response_deserializer=decode,
        )
        self._unprepare = self._channel.unary_unary(
            f"/{name}/NodeUnprepareResources",
            request_serializer=api_pb2.NodeUnprepareResourcesRequest.SerializeToString,
            response_deserializer=api_pb2.NodeUnprepareResourcesResponse.FromString,
        )

    def connected(self) -> bool:
        """Whether the driver is there. Asking also makes a lost connection come back."""
        state = self._channel.get_state(try_to_connect=True)
        return state is grpc.ChannelConnectivity.READY

    async def prepare(
        self, request: api_pb2.NodePrepareResourcesRequest, *, timeout_s: float
    ) -> api_pb2.NodePrepareResourcesResponse:
        """The driver's answer, or ClaimError."""
        return await self._answer(self._prepare(request, timeout=timeout_s))

    async def unprepare(
        self, request: api_pb2.NodeUnprepareResourcesRequest, *, timeout_s: float
    ) -> api_pb2.NodeUnprepareResourcesResponse:
        """The driver's answer, or ClaimError."""
        return await self._answer(self._unprepare(request, timeout=timeout_s))

    def watch_health(self, service: str) -> AsyncIterable[health_pb2.NodeWatchResourcesResponse]:
        """What the driver says of its devices, as long as it does; both versions of the service have the same messages."""
        watch = self._channel.unary_stream(
            f"/{service}/NodeWatchResources",
            request_serializer=health_pb2.NodeWatchResourcesRequest.SerializeToString,
            response_deserializer=health_pb2.NodeWatchResourcesResponse.FromString,
        )
        return watch(health_pb2.NodeWatchResourcesRequest())

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
