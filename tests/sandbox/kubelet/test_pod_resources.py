from __future__ import annotations

import grpc.aio

from dra_driver.wire.podresources_v1 import api_pb2, api_pb2_grpc
from tests.sandbox.kubelet.lab import NAMESPACE, NODE, Lab, eventually


async def list_pods(lab: Lab) -> dict[str, api_pb2.PodResources]:
    """What the kubelet answers, by pod."""
    path = lab.root / "pod-resources" / "kubelet.sock"
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"unix:{path}", options) as channel:
        stub = api_pb2_grpc.PodResourcesListerStub(channel)
        answer = await stub.List(api_pb2.ListPodResourcesRequest(), timeout=5)
    return {pod.name: pod for pod in answer.pod_resources}


async def test_a_pod_s_devices_are_listed_with_their_shares(lab: Lab) -> None:
    """Field for field; a device that is not shared has no share at all."""
    driver = lab.driver()
    driver.shares = {"shared": ("share-1", "share-2")}
    for name in ("own", "shared"):
        await lab.make_claim(name)
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "own", "shared")
        await lab.until_running("pod")
        pod = (await list_pods(lab))["pod"]
    assert (pod.name, pod.namespace) == ("pod", NAMESPACE)
    [container] = pod.containers
    assert container.name == "c0"
    own, shared = container.dynamic_resources
    assert (own.claim_name, own.claim_namespace) == ("own", NAMESPACE)
    assert own.claim_resources == [
        api_pb2.ClaimResource(
            cdi_devices=[api_pb2.CDIDevice(name="a.example.com/claim=own-gpu")],
            driver_name="a.example.com",
            pool_name=NODE,
            device_name="own-gpu",
        )
    ]
    assert [one.share_id for one in shared.claim_resources] == ["share-1", "share-2"]


async def test_containers_without_claims_have_nothing(lab: Lab) -> None:
    """Nor has a pod whose claim is not prepared; a pod that is gone is not listed."""
    driver = lab.driver()
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("none")
        await lab.start_pod("pod", "gpu", requests=["", ""])
        await lab.until_running("none")
        await lab.until_running("pod")
        pods = await list_pods(lab)
        assert [len(c.dynamic_resources) for c in pods["none"].containers] == [0]
        assert [len(c.dynamic_resources) for c in pods["pod"].containers] == [1, 1]
        await lab.create_pod(
            "waiting",
            {
                "containers": [{"name": "c", "resources": {"claims": [{"name": "gpu"}]}}],
                "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}],
            },
        )
        await lab.delete_pod("pod")
        await lab.until_gone("pod")

        async def listed() -> bool:
            return set(await list_pods(lab)) == {"none", "waiting"}

        await eventually(listed)
        assert not (await list_pods(lab))["waiting"].containers[0].dynamic_resources


async def test_the_list_survives_a_restart_of_the_kubelet(lab: Lab) -> None:
    """From its checkpoint, before any driver has answered again."""
    driver = lab.driver()
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "gpu")
        await lab.until_running("pod")
        before = await list_pods(lab)
    async with lab.kubelet():

        async def same() -> bool:
            return (lab.root / "pod-resources" / "kubelet.sock").exists() and (
                await list_pods(lab)
            ) == before

        await eventually(same)
