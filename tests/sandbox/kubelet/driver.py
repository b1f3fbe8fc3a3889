"""A DRA driver that does what a test tells it, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio

from dra_driver.wire.dra_v1 import api_pb2, api_pb2_grpc
from dra_driver.wire.health_v1 import api_pb2 as health_pb2
from dra_driver.wire.registration_v1 import api_pb2 as registration_pb2
from dra_driver.wire.registration_v1 import api_pb2_grpc as registration_pb2_grpc
from dra_driver.wire.sockets import serving
from kubelet_plugin.health_service import HealthBoard, HealthService

Handlers: TypeAlias = dict[str, "grpc.RpcMethodHandler[Any, Any]"]
Script: TypeAlias = list[str | Callable[[], Awaitable[Any]]]


@dataclass
class Driver(api_pb2_grpc.DRAPluginServicer, registration_pb2_grpc.RegistrationServicer):
    """Prepares a device for each of a claim's `requests` (by claim name; `gpu` if nothing is said; "" for one of all).

    A claim in `shares` gets these shares of each. What `board` says of its devices is streamed.

    A script holds what the next calls do first: answer an error for every claim, or run a coroutine, whose result, if any,
    is the answer. `prepared` and `unprepared` note the claims of every call, by name; `called` and `watched` which service was
    used for calls and for health.
    """

    name: str
    cdi: Path
    info: registration_pb2.PluginInfo
    requests: dict[str, tuple[str, ...]] = field(default_factory=dict)
    info_script: Script = field(default_factory=list)
    notify_script: Script = field(default_factory=list)
    prepare_script: Script = field(default_factory=list)
    unprepare_script: Script = field(default_factory=list)
    registrations: list[tuple[bool, str]] = field(default_factory=list)
    prepared: list[list[str]] = field(default_factory=list)
    unprepared: list[list[str]] = field(default_factory=list)
    called: set[str] = field(default_factory=set)
    watched: list[str] = field(default_factory=list)
    shares: dict[str, tuple[str, ...]] = field(default_factory=dict)
    board: HealthBoard = field(default_factory=HealthBoard)
    health_type: type[HealthService] = HealthService
    health_timeout_s: float = 30.0

    async def GetInfo(  # noqa: N802
        self, request: registration_pb2.InfoRequest, context: object
    ) -> registration_pb2.PluginInfo:
        await _next_step(self.info_script)
        return self.info

    async def NotifyRegistrationStatus(  # noqa: N802
        self, request: registration_pb2.RegistrationStatus, context: object
    ) -> registration_pb2.RegistrationStatusResponse:
        await _next_step(self.notify_script)
        self.registrations.append((request.plugin_registered, request.error))
        return registration_pb2.RegistrationStatusResponse()

    async def NodePrepareResources(  # noqa: N802
        self, request: api_pb2.NodePrepareResourcesRequest, context: object
    ) -> api_pb2.NodePrepareResourcesResponse:
        self.prepared.append([claim.name for claim in request.claims])
        error, answer = await _next_step(self.prepare_script)
        return answer or api_pb2.NodePrepareResourcesResponse(
            claims={
                claim.uid: api_pb2.NodePrepareResourceResponse(
                    error=error, devices=[] if error else self._devices(claim)
                )
                for claim in request.claims
            }
        )

    async def NodeUnprepareResources(  # noqa: N802
        self, request: api_pb2.NodeUnprepareResourcesRequest, context: object
    ) -> api_pb2.NodeUnprepareResourcesResponse:
        self.unprepared.append([claim.name for claim in request.claims])
        error, answer = await _next_step(self.unprepare_script)
        return answer or api_pb2.NodeUnprepareResourcesResponse(
            claims={
                claim.uid: api_pb2.NodeUnprepareResourceResponse(error=error)
                for claim in request.claims
            }
        )

    def _devices(self, claim: api_pb2.Claim) -> list[api_pb2.Device]:
        """One for each request; they are in the claim's CDI file when this returns."""
        devices = [
            api_pb2.Device(
                request_names=[request] if request else [],
                pool_name="node-1",
                device_name=f"{claim.name}-{request or 'any'}",
                share_id=share,
            )
            for request in self.requests.get(claim.name, ("gpu",))
            for share in self.shares.get(claim.name, (None,))
        ]
        edits = {}
        for device in devices:
            name = "-".join(filter(None, (device.device_name, device.share_id)))
            device.cdi_device_ids.append(f"{self.name}/claim={name}")
            edits[name] = {"deviceNodes": [{"path": f"/dev/{name}"}]}
        spec = {
            "cdiVersion": "0.5.0",
            "kind": f"{self.name}/claim",
            "containerEdits": {"env": [f"DRIVER={self.name}"]},
            "devices": [{"name": name, "containerEdits": edit} for name, edit in edits.items()],
        }
        (self.cdi / f"{self.name}_{claim.uid}.json").write_text(json.dumps(spec))
        return devices

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """The DRA service is there, and all that goes with it, until the board is closed and no call is left."""
        self.board.closed = False
        async with serving(Path(self.info.endpoint), self._add_services, grace_s=30.0):
            try:
                yield
            finally:
                self.board.close()

    def _add_services(self, server: grpc.aio.Server) -> None:
        """Of what the driver can do, that which it says it can."""
        for service in self.info.supported_versions:
            kind = service.partition(".")[2]
            if kind == "DRAPlugin":
                name, handlers = f"k8s.io.kubelet.pkg.apis.dra.{service}", self._calls(service)
            else:
                name, handlers = service, self._watches(service)
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))

    def _calls(self, service: str) -> Handlers:
        async def prepare(request: Any, context: object) -> Any:
            self.called.add(service)
            return await self.NodePrepareResources(request, context)

        async def unprepare(request: Any, context: object) -> Any:
            self.called.add(service)
            return await self.NodeUnprepareResources(request, context)

        return {
            "NodePrepareResources": grpc.unary_unary_rpc_method_handler(
                prepare,
                request_deserializer=api_pb2.NodePrepareResourcesRequest.FromString,
                response_serializer=api_pb2.NodePrepareResourcesResponse.SerializeToString,
            ),
            "NodeUnprepareResources": grpc.unary_unary_rpc_method_handler(
                unprepare,
                request_deserializer=api_pb2.NodeUnprepareResourcesRequest.FromString,
                response_serializer=api_pb2.NodeUnprepareResourcesResponse.SerializeToString,
            ),
        }

    def _watches(self, service: str) -> Handlers:
        health = self.health_type(self.board, timeout_s=self.health_timeout_s)

        async def watch(request: Any, context: Any) -> AsyncIterator[Any]:
            self.watched.append(service)
            async for message in health.NodeWatchResources(request, context):
                yield message

        return {
            "NodeWatchResources": grpc.unary_stream_rpc_method_handler(
                watch,
                request_deserializer=health_pb2.NodeWatchResourcesRequest.FromString,
                response_serializer=health_pb2.NodeWatchResourcesResponse.SerializeToString,
            )
        }

    @asynccontextmanager
    async def registering(self, registry: Path) -> AsyncIterator[None]:
        """The registration service is there."""

        def add(server: grpc.aio.Server) -> None:
            registration_pb2_grpc.add_RegistrationServicer_to_server(self, server)

        async with serving(registry / f"{Path(self.info.endpoint).stem}-reg.sock", add):
            yield

    @asynccontextmanager
    async def running(self, registry: Path) -> AsyncIterator[None]:
        """Both are there, the DRA service first."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.serving())
            await stack.enter_async_context(self.registering(registry))
            yield


async def hang() -> None:
    """A step of a script: the call is never answered."""
    await asyncio.Event().wait()


async def _next_step(script: Script) -> tuple[str, Any]:
    if not script:
        return "", None
    step = script.pop(0)
    return (step, None) if isinstance(step, str) else ("", await step())
