"""Which claims pods use, asked of a server that answers as a kubelet would."""

from __future__ import annotations

import tempfile
from pathlib import Path
from shutil import rmtree

import grpc.aio
import pytest

from dra_driver.model.errors import KubeletUnavailable
from dra_driver.wire.pod_resources import pods_by_claim
from dra_driver.wire.podresources_v1 import api_pb2, api_pb2_grpc


class Kubelet(api_pb2_grpc.PodResourcesListerServicer):
    """Two containers: one with a prepared claim, one whose claim is still to be prepared."""

    async def List(self, request: object, context: object) -> api_pb2.ListPodResourcesResponse:  # noqa: N802
        device = api_pb2.ClaimResource(driver_name="d", pool_name="p", device_name="gpu")
        prepared = api_pb2.DynamicResource(
            claim_name="used", claim_namespace="a", claim_resources=[device]
        )
        waiting = api_pb2.DynamicResource(claim_name="waiting", claim_namespace="a")
        containers = [
            api_pb2.ContainerResources(name="c", dynamic_resources=[one])
            for one in (prepared, waiting)
        ]
        pod = api_pb2.PodResources(name="pod", namespace="a", containers=containers)
        return api_pb2.ListPodResourcesResponse(pod_resources=[pod])


async def test_a_claim_is_in_use_once_it_has_devices() -> None:
    """A claim that only waits has none, and may wait for a former one of its name."""
    folder = Path(tempfile.mkdtemp(prefix="dra-"))
    server = grpc.aio.server()
    api_pb2_grpc.add_PodResourcesListerServicer_to_server(Kubelet(), server)
    server.add_insecure_port(f"unix:{folder / 's'}")
    await server.start()
    try:
        assert await pods_by_claim(folder / "s") == {("a", "used"): {"pod"}}
    finally:
        await server.stop(None)
        rmtree(folder)


async def test_a_kubelet_that_does_not_answer_is_named_with_a_fix(tmp_path: Path) -> None:
    """By its socket."""
    with pytest.raises(
        KubeletUnavailable, match=r"does not say at .*/no.sock .*KubeletPodResources"
    ):
        await pods_by_claim(tmp_path / "no.sock")
