from __future__ import annotations

from dataclasses import replace
from typing import Any

from dra_driver.model import kinds
from dra_driver.wire.dra_v1 import api_pb2
from tests.sandbox.kubelet.driver import hang
from tests.sandbox.kubelet.lab import NAMESPACE, SHORT, Lab, eventually


async def test_a_pod_runs_with_its_devices(lab: Lab) -> None:
    """Prepared before it runs; ready, with what CDI says in its container; the driver's edits for all come once."""
    driver = lab.driver()
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "gpu")
        pod = await lab.until_running("pod")
    assert driver.prepared == [["gpu"]]
    conditions = {one["type"]: one["status"] for one in pod["status"]["conditions"]}
    assert conditions["Ready"] == conditions["ContainersReady"] == "True"
    assert [one["ready"] for one in pod["status"]["containerStatuses"]] == [True]
    assert lab.view("pod") == [
        {
            "name": "c0",
            "cdiDevices": ["a.example.com/claim=gpu-gpu"],
            "env": {"DRIVER": "a.example.com"},
            "deviceNodes": [
                {"path": "/dev/gpu-gpu", "hostPath": "/dev/gpu-gpu", "permissions": "rwm"}
            ],
            "mounts": [],
        }
    ]


async def test_a_pod_without_claims_needs_no_driver(lab: Lab) -> None:
    """Nobody is asked."""
    async with lab.kubelet():
        await lab.start_pod("pod")
        await lab.until_running("pod")


async def test_containers_get_the_requests_that_they_name(lab: Lab) -> None:
    """A device without request names belongs to every request; a container that names none gets all; one without claims, nothing."""
    driver = lab.driver()
    driver.requests = {"mixed": ("a", "b", "")}
    await lab.make_claim("mixed")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "mixed", requests=["a", "b", ""])
        await lab.until_running("pod")
    devices = {
        one["name"]: [node["path"] for node in one["deviceNodes"]] for one in lab.view("pod")
    }
    assert devices == {
        "c0": ["/dev/mixed-a", "/dev/mixed-any"],
        "c1": ["/dev/mixed-b", "/dev/mixed-any"],
        "c2": ["/dev/mixed-a", "/dev/mixed-b", "/dev/mixed-any"],
    }


async def test_claims_are_prepared_though_no_container_uses_them(lab: Lab) -> None:
    """The pod's list of claims counts; init containers see theirs."""
    driver = lab.driver()
    await lab.make_claim("gpu")
    spec = {
        "initContainers": [
            {"name": "init", "image": "i", "resources": {"claims": [{"name": "g"}]}}
        ],
        "containers": [{"name": "main", "image": "i"}],
        "resourceClaims": [{"name": "g", "resourceClaimName": "gpu"}],
    }
    async with driver.running(lab.registry), lab.kubelet():
        await lab.reserve("gpu", await lab.create_pod("pod", spec))
        await lab.until_running("pod")
    assert [(one["name"], one["cdiDevices"]) for one in lab.view("pod")] == [
        ("init", ["a.example.com/claim=gpu-gpu"]),
        ("main", []),
    ]


async def test_a_generated_claim_is_found_through_the_pod_s_status(lab: Lab) -> None:
    """The pod waits for it to be made; a claim that was generated for another pod is refused."""
    driver = lab.driver()
    spec = {
        "containers": [{"name": "main", "image": "i", "resources": {"claims": [{"name": "g"}]}}],
        "resourceClaims": [{"name": "g", "resourceClaimTemplateName": "template"}],
    }
    async with driver.running(lab.registry), lab.kubelet():
        pod = await lab.create_pod("pod", spec)
        await lab.until_failing("pod", "ResourceClaim has not been created yet")
        other = await lab.create_pod("other", spec)
        await lab.make_claim("pod-g-x", owner=other)
        await lab.reserve("pod-g-x", pod)
        await lab.set_claim_status("pod", {"name": "g", "resourceClaimName": "pod-g-x"})
        await lab.until_failing("pod", "default/pod-g-x was not generated for pod pod")
        await lab.make_claim("pod-g-y", owner=pod)
        await lab.reserve("pod-g-y", pod)
        await lab.set_claim_status("pod", {"name": "g", "resourceClaimName": "pod-g-y"})
        await lab.until_running("pod")
    assert driver.prepared == [["pod-g-y"]]


async def test_a_claim_that_turned_out_unnecessary_is_left_out(lab: Lab) -> None:
    """A status entry without a claim's name says just that."""
    spec = {
        "containers": [{"name": "main", "image": "i"}],
        "resourceClaims": [{"name": "g", "resourceClaimTemplateName": "template"}],
    }
    async with lab.kubelet():
        await lab.create_pod("pod", spec)
        await lab.set_claim_status("pod", {"name": "g"})
        await lab.until_running("pod")


async def test_a_claim_must_be_allocated_and_reserved(lab: Lab) -> None:
    """Checked by the kubelet itself, before any driver is asked."""
    driver = lab.driver()
    await lab.make_claim("gpu")
    spec = {
        "containers": [{"name": "main", "image": "i"}],
        "resourceClaims": [{"name": "g", "resourceClaimName": "gpu"}],
    }
    async with driver.running(lab.registry), lab.kubelet():
        pod = await lab.create_pod("pod", spec)
        await lab.until_failing("pod", "ResourceClaim default/gpu is not reserved for pod pod")
        await lab.patch_claim("gpu", {"allocation": None})
        await lab.until_failing("pod", "ResourceClaim default/gpu is not allocated")
        await lab.delete_claim("gpu")
        await lab.until_failing("pod", "not found")
        assert driver.prepared == []
        await lab.make_claim("gpu")
        await lab.reserve("gpu", pod)
        await lab.until_running("pod")


async def test_a_failed_prepare_is_reported_and_tried_again(lab: Lab) -> None:
    """An Event that counts, a message in the status, and a pod that runs in the end with neither."""
    driver = lab.driver()
    driver.prepare_script = ["no such luck"] * 3
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "gpu")
        await lab.until_failing("pod", "failed for ResourceClaim default/gpu: no such luck")
        pod = await lab.until_running("pod")
    assert "message" not in pod["status"]
    assert len(driver.prepared) == 4
    events = (await lab.api.list(kinds.EVENT, namespace=NAMESPACE)).items
    failures = [one for one in events if "no such luck" in one["message"]]
    assert [(one["type"], one["reason"]) for one in failures] == [
        ("Warning", "FailedPrepareDynamicResources")
    ]
    assert failures[0]["involvedObject"]["uid"] == pod["metadata"]["uid"]


async def test_a_prepare_that_takes_too_long_is_tried_again(lab: Lab) -> None:
    """The call ends at its deadline."""
    driver = lab.driver()
    driver.prepare_script = [hang]
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet(replace(SHORT, prepare_s=0.3)):
        await lab.start_pod("pod", "gpu")
        await lab.until_failing("pod", "DEADLINE_EXCEEDED")
        await lab.until_running("pod")


def answer_of(*uids: str) -> Any:
    async def answer() -> api_pb2.NodePrepareResourcesResponse:
        return api_pb2.NodePrepareResourcesResponse(
            claims={uid: api_pb2.NodePrepareResourceResponse() for uid in uids}
        )

    return answer


async def test_an_answer_must_speak_of_exactly_the_claims_asked_about(lab: Lab) -> None:
    """A missing claim and an unknown one are errors of the whole call."""
    driver = lab.driver()
    uids = [await lab.make_claim("one"), await lab.make_claim("two")]
    driver.prepare_script = [answer_of(uids[0])]
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "one", "two")
        await lab.until_failing("pod", "skipped 1 ResourceClaims")
        driver.prepare_script = [answer_of(*uids, "unknown")]
        await lab.until_failing("pod", "claim UID 'unknown', which nobody asked about")
        await lab.until_running("pod")
    assert driver.prepared[-1] == ["one", "two"]


async def test_an_unknown_cdi_device_keeps_the_pod_from_starting(lab: Lab) -> None:
    """As a container runtime would refuse: the spec file must be there before the driver answers."""
    driver = lab.driver()
    uid = await lab.make_claim("gpu")

    async def lie() -> api_pb2.NodePrepareResourcesResponse:
        device = api_pb2.Device(pool_name="p", device_name="d", cdi_device_ids=["a/b=missing"])
        return api_pb2.NodePrepareResourcesResponse(
            claims={uid: api_pb2.NodePrepareResourceResponse(devices=[device])}
        )

    driver.prepare_script = [lie]
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "gpu")
        await lab.until_failing("pod", "unresolvable CDI device a/b=missing")


async def test_a_deleted_pod_goes_after_its_devices_were_given_back(lab: Lab) -> None:
    """It stays Terminating as long as unprepare fails."""
    driver = lab.driver()
    driver.unprepare_script = ["busy"] * 3
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "gpu")
        await lab.until_running("pod")
        await lab.delete_pod("pod")

        async def tried_twice() -> bool:
            return len(driver.unprepared) >= 2

        await eventually(tried_twice)
        assert await lab.pod("pod") is not None
        await lab.until_gone("pod")
    assert driver.unprepared == [["gpu"]] * 4
    assert not (lab.root / "pods" / f"{NAMESPACE}_pod.json").exists()


async def test_a_pod_deleted_while_it_is_prepared_is_unprepared(lab: Lab) -> None:
    """The call is given up, and what it may have done is undone."""
    driver = lab.driver()
    driver.prepare_script = [hang] * 100
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "gpu")

        async def asked() -> bool:
            return bool(driver.prepared)

        await eventually(asked)
        await lab.delete_pod("pod")
        await lab.until_gone("pod")
    assert driver.unprepared == [["gpu"]]


async def test_a_shared_claim_is_prepared_with_the_first_pod_and_unprepared_with_the_last(
    lab: Lab,
) -> None:
    """The second pod finds it prepared, and both see the same device."""
    driver = lab.driver()
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        for name in ("one", "two"):
            await lab.start_pod(name, "gpu")
        await lab.reserve("gpu", *[pod for name in ("one", "two") if (pod := await lab.pod(name))])
        for name in ("one", "two"):
            await lab.until_running(name)
        assert driver.prepared == [["gpu"]]
        assert lab.view("one") == lab.view("two")
        await lab.delete_pod("one")
        await lab.until_gone("one")
        assert driver.unprepared == []
        await lab.delete_pod("two")
        await lab.until_gone("two")
    assert driver.unprepared == [["gpu"]]


async def test_every_driver_of_a_claim_is_asked(lab: Lab) -> None:
    """One that fails is asked again together with the others: they must be idempotent."""
    one, two = lab.driver(), lab.driver("b.example.com")
    two.prepare_script = ["not now"]
    await lab.make_claim("both", one.name, two.name)
    async with one.running(lab.registry), two.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "both")
        await lab.until_running("pod")
        assert {node["path"] for node in lab.view("pod")[0]["deviceNodes"]} == {"/dev/both-gpu"}
        await lab.delete_pod("pod")
        await lab.until_gone("pod")
    assert two.prepared == [["both"], ["both"]]
    assert one.unprepared == two.unprepared == [["both"]]


async def test_no_driver_is_asked_before_all_are_there(lab: Lab) -> None:
    """A pod may wait for a driver that comes later."""
    one, two = lab.driver(), lab.driver("b.example.com")
    await lab.make_claim("both", one.name, two.name)
    async with one.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "both")
        await lab.until_failing("pod", "DRA driver b.example.com is not registered")
        assert one.prepared == []
        async with two.running(lab.registry):
            await lab.until_running("pod")


async def test_claims_of_a_pod_are_asked_for_in_one_call(lab: Lab) -> None:
    """One batch for each driver."""
    driver = lab.driver()
    names = [f"claim-{number:02}" for number in range(20)]
    for name in names:
        await lab.make_claim(name)
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", *names)
        await lab.until_running("pod")
    assert driver.prepared == [names]
