"""How the devices are, told to the kubelet (k8s.io/kubelet dra-health v1 and v1alpha1, KEP-4680); it shows that in the pods' status.

A stream says everything each time, at once when something changes, and otherwise before the kubelet stops believing it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import grpc
import grpc.aio

from dra_driver.wire.health_v1 import api_pb2, api_pb2_grpc
from dra_driver.wire.health_v1alpha1 import api_pb2 as v1alpha1_pb2

TIMEOUT_S = 30.0
"""What the kubelet takes where a driver says nothing; kubelets before 1.35 know no other."""
MESSAGE_LIMIT_BYTES = 1024
"""The kubelet allows so many characters, but counts bytes, and would cut through a character."""


class Health(Enum):
    """What is known of a device. No data means UNKNOWN."""

    UNKNOWN = api_pb2.HealthStatus.UNKNOWN
    HEALTHY = api_pb2.HealthStatus.HEALTHY
    UNHEALTHY = api_pb2.HealthStatus.UNHEALTHY


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceHealth:
    """One device's health; `message` is for people."""

    health: Health
    message: str = ""


Device: TypeAlias = tuple[str, str]
"""Its pool's name, and its own."""
DeviceHealths: TypeAlias = Mapping[Device, DeviceHealth]
"""All devices that are published or allocated."""


class HealthBoard:
    """The one source of health: whoever looks at the hardware writes it, every open stream reads it.

    `current` is replaced, never changed; `changed` is set when there is something to say at once. Until the first look no
    device is named, which means unknown.
    """

    def __init__(self) -> None:
        self.current: DeviceHealths = {}
        self._seen_at_s = 0.0
        self._not_since: Mapping[Device, float] = {}
        self.changed = asyncio.Event()
        self.closed = False

    def update(
        self, healths: DeviceHealths, seen_at_s: float, unseen: Collection[Device] = ()
    ) -> None:
        """This is how all devices were at that time (since 1970). Where only the time is new, the next heartbeat carries it.

        Devices that were `unseen` by then keep their time, unless something else is said of them than before.
        """
        self._not_since = {
            device: self.seen_at_s(device)
            for device in unseen
            if healths.get(device) == self.current.get(device)
        }
        self._seen_at_s = seen_at_s
        if healths is not self.current and healths != self.current:
            self.current = dict(healths)
            self._wake()

    def seen_at_s(self, device: Device) -> float:
        """When the device was as `current` says."""
        return self._not_since.get(device, self._seen_at_s)

    def close(self) -> None:
        """End all streams, and those still to come: a server that stops would wait for them."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class HealthService(api_pb2_grpc.DRAResourceHealthServicer):
    """Any number of streams, of both versions, which have the same messages. The heartbeat is a third of `timeout_s`."""

    def __init__(self, board: HealthBoard, *, timeout_s: float = TIMEOUT_S) -> None:
        self._board = board
        self._timeout_s = timeout_s

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve both versions on this server."""
        watch = grpc.unary_stream_rpc_method_handler(
            self.NodeWatchResources,
            request_deserializer=api_pb2.NodeWatchResourcesRequest.FromString,
            response_serializer=api_pb2.NodeWatchResourcesResponse.SerializeToString,
        )
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"NodeWatchResources": watch}
        for file in (api_pb2.DESCRIPTOR, v1alpha1_pb2.DESCRIPTOR):
            name = file.services_by_name["DRAResourceHealth"].full_name
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))

    async def NodeWatchResources(  # noqa: N802 - the contract's name
        self,
        request: api_pb2.NodeWatchResourcesRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext[  # noqa: ARG002
            api_pb2.NodeWatchResourcesRequest, api_pb2.NodeWatchResourcesResponse
        ],
    ) -> AsyncIterator[api_pb2.NodeWatchResourcesResponse]:
        """All devices: now, at every change, and at every heartbeat, until the board is closed."""
        while not self._board.closed:
            changed = (
                self._board.changed
            )  # before reading: what changes while we send is not missed
            yield self._message()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout_s / 3):
                    await changed.wait()

    def _message(self) -> api_pb2.NodeWatchResourcesResponse:
        timeout_s = math.ceil(self._timeout_s)
        return api_pb2.NodeWatchResourcesResponse(
            devices=[
                api_pb2.DeviceHealth(
                    device=api_pb2.DeviceIdentifier(pool_name=device[0], device_name=device[1]),
                    health=found.health.value,
                    last_updated_time=int(self._board.seen_at_s(device)),
                    health_check_timeout_seconds=timeout_s,
                    message=_cut(found.message),
                )
                for device, found in self._board.current.items()
            ]
        )


def _cut(message: str) -> str:
    """At most `MESSAGE_LIMIT_BYTES`, with an ellipsis where something is missing."""
    encoded = message.encode(errors="replace")
    if len(encoded) <= MESSAGE_LIMIT_BYTES:
        return encoded.decode()
    return encoded[: MESSAGE_LIMIT_BYTES - 3].decode(errors="ignore") + "..."
