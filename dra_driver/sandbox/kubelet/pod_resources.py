"""Which devices the node's pods have, for whoever asks on the node (k8s.io/kubelet podresources v1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import grpc.aio

from dra_driver.model.errors import ClaimError
from dra_driver.ports import JsonObject
from dra_driver.sandbox.kubelet.checkpoint import HeldClaim
from dra_driver.sandbox.kubelet.claims import NodeClaims
from dra_driver.wire.podresources_v1 import api_pb2, api_pb2_grpc
from dra_driver.wire.sockets import serving


class PodResources(api_pb2_grpc.PodResourcesListerServicer):
    """Every pod that is on the node, running or not; every device of a claim, whichever request a container names.

    The real kubelet repeats the CDI devices of a claim's earlier devices with its later ones; here each has its own.
    """

    def __init__(
        self, socket: Path, claims: NodeClaims, pods: Callable[[], Iterable[JsonObject]]
    ) -> None:
        self._socket = socket
        self._claims = claims
        self._pods = pods

    async def run(self) -> None:
        """Serve until cancelled. Raises StartError."""
        async with serving(self._socket, self._add_to):
            await asyncio.Event().wait()

    async def List(  # noqa: N802 - the contract's name
        self,
        request: api_pb2.ListPodResourcesRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext[  # noqa: ARG002
            api_pb2.ListPodResourcesRequest, api_pb2.ListPodResourcesResponse
        ],
    ) -> api_pb2.ListPodResourcesResponse:
        """All pods; a container has an entry for each claim that it uses and that is held."""
        return api_pb2.ListPodResourcesResponse(pod_resources=map(self._pod, self._pods()))

    def _add_to(self, server: grpc.aio.Server) -> None:
        api_pb2_grpc.add_PodResourcesListerServicer_to_server(self, server)

    def _pod(self, pod: JsonObject) -> api_pb2.PodResources:
        try:
            claims = self._claims.held(pod)
        except ClaimError:
            claims = {}  # a claim has yet to be made: the pod has nothing
        containers = []
        for container in pod["spec"]["containers"]:
            used = {entry["name"] for entry in container.get("resources", {}).get("claims", ())}
            resources = [_dynamic(claim) for name, claim in claims.items() if name in used]
            containers.append(
                api_pb2.ContainerResources(name=container["name"], dynamic_resources=resources)
            )
        metadata = pod["metadata"]
        return api_pb2.PodResources(
            name=metadata["name"], namespace=metadata["namespace"], containers=containers
        )


def _dynamic(claim: HeldClaim) -> api_pb2.DynamicResource:
    return api_pb2.DynamicResource(
        claim_name=claim.ref.name,
        claim_namespace=claim.ref.namespace,
        claim_resources=_resources(claim),
    )


def _resources(claim: HeldClaim) -> Iterator[api_pb2.ClaimResource]:
    for driver, devices in claim.devices.items():
        for device in devices:
            yield api_pb2.ClaimResource(
                cdi_devices=[api_pb2.CDIDevice(name=name) for name in device.cdi_ids],
                driver_name=driver,
                pool_name=device.pool,
                device_name=device.device,
                share_id=device.share_id,
            )
