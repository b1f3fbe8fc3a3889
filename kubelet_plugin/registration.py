"""How the kubelet finds this plugin (k8s.io/kubelet pluginregistration/v1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc.aio
import structlog

from dra_driver.wire.registration_v1 import api_pb2, api_pb2_grpc

SUPPORTED_VERSIONS = (
    "v1.DRAPlugin",
    "v1beta1.DRAPlugin",
    "v1.DRAResourceHealth",
    "v1alpha1.DRAResourceHealth",
)
"""Services: a kubelet takes the first DRAPlugin of the list that it knows, and the newest DRAResourceHealth."""

_log = structlog.get_logger()


class Registration(api_pb2_grpc.RegistrationServicer):
    """Answers from memory, well within the kubelet's one second also while many claims are prepared.

    `registered` is set while the kubelet's last word was yes; `error` is what it said otherwise. A refusal is no reason to
    stop: the kubelet tries again by itself. `on_registered` is called at each yes: also after the kubelet was restarted.
    """

    def __init__(
        self, *, driver: str, endpoint: Path, on_registered: Callable[[], None] = lambda: None
    ) -> None:
        self._info = api_pb2.PluginInfo(
            type="DRAPlugin",
            name=driver,
            endpoint=str(endpoint),
            supported_versions=SUPPORTED_VERSIONS,
        )
        self._on_registered = on_registered
        self.registered = asyncio.Event()
        self.error = ""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on this server."""
        api_pb2_grpc.add_RegistrationServicer_to_server(self, server)

    async def GetInfo(  # noqa: N802 - the contract's name
        self,
        request: api_pb2.InfoRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext[api_pb2.InfoRequest, api_pb2.PluginInfo],  # noqa: ARG002
    ) -> api_pb2.PluginInfo:
        """Who we are, and where the DRA service listens."""
        return self._info

    async def NotifyRegistrationStatus(  # noqa: N802 - the contract's name
        self,
        request: api_pb2.RegistrationStatus,
        context: grpc.aio.ServicerContext[  # noqa: ARG002
            api_pb2.RegistrationStatus, api_pb2.RegistrationStatusResponse
        ],
    ) -> api_pb2.RegistrationStatusResponse:
        """Take note of what the kubelet made of us."""
        self.error = request.error
        if request.plugin_registered:
            _log.info("registered with the kubelet", driver=self._info.name)
            self.registered.set()
            self._on_registered()
        else:
            self.registered.clear()
            _log.error(
                "the kubelet refused to register us", driver=self._info.name, error=request.error
            )
        return api_pb2.RegistrationStatusResponse()
