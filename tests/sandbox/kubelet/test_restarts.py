from __future__ import annotations

import asyncio
import json

from dra_driver.model import kinds
from tests.sandbox.kubelet.driver import Driver, hang
from tests.sandbox.kubelet.lab import Lab, eventually


async def until_unprepared(driver: Driver, *calls: list[str]) -> None:
    async def done() -> bool:
        return driver.unprepared == list(calls)

    await eventually(done)


async def until_prepared(driver: Driver, *calls: list[str]) -> None:
    async def done() -> bool:
        return driver.prepared == list(calls)

    await eventually(done)


async def until_forgotten(lab: Lab) -> None:
    """No claim is in the checkpoint, which is written when the driver has answered and not when it is called."""

    async def done() -> bool:
        return not json.loads((lab.root / "dra_manager_state.json").read_text())["claims"]

    await eventually(done)


async def test_claims_in_use_are_prepared_again_after_a_restart(lab: Lab) -> None:
    """The pod runs on meanwhile, and can still be stopped properly."""
    driver = lab.driver()
    await lab.make_claim("gpu")
    async with driver.running(lab.registry):
        async with lab.kubelet():
            await lab.start_pod("pod", "gpu")
            before = await lab.until_running("pod")
        async with lab.kubelet():
            await until_prepared(driver, ["gpu"], ["gpu"])
            assert (await lab.until_running("pod"))["status"] == before["status"]
            await lab.delete_pod("pod")
            await lab.until_gone("pod")
    assert driver.unprepared == [["gpu"]]


async def test_a_running_pod_runs_on_though_its_second_prepare_fails(lab: Lab) -> None:
    """Its containers are not the kubelet's to stop; the call is tried again."""
    driver = lab.driver()
    await lab.make_claim("gpu")
    async with driver.running(lab.registry):
        async with lab.kubelet():
            await lab.start_pod("pod", "gpu")
            before = await lab.until_running("pod")
        driver.prepare_script = ["not now"]
        async with lab.kubelet():
            await until_prepared(driver, ["gpu"], ["gpu"], ["gpu"])
            assert (await lab.until_running("pod"))["status"] == before["status"]


async def test_a_prepare_that_failed_before_a_restart_succeeds_after_it(lab: Lab) -> None:
    """Also one that was running when the kubelet stopped."""
    driver = lab.driver()
    driver.prepare_script = [hang]
    await lab.make_claim("gpu")
    async with driver.running(lab.registry):
        async with lab.kubelet():
            await lab.start_pod("pod", "gpu")
            await until_prepared(driver, ["gpu"])
        async with lab.kubelet():
            await lab.until_running("pod")


async def test_a_pod_made_while_no_kubelet_runs_is_started_later(lab: Lab) -> None:
    """The API is the memory."""
    driver = lab.driver()
    await lab.make_claim("gpu")
    await lab.start_pod("pod", "gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.until_running("pod")


async def test_a_pod_deleted_while_no_kubelet_ran_is_unprepared_only(lab: Lab) -> None:
    """Nothing is prepared for it any more."""
    driver = lab.driver()
    await lab.make_claim("gpu")
    async with driver.running(lab.registry):
        async with lab.kubelet():
            await lab.start_pod("pod", "gpu")
            await lab.until_running("pod")
        await lab.delete_pod("pod")
        async with lab.kubelet():
            await lab.until_gone("pod")
    assert driver.prepared == [["gpu"]]
    assert driver.unprepared == [["gpu"]]


async def test_claims_of_a_pod_that_vanished_while_no_kubelet_ran_are_unprepared(lab: Lab) -> None:
    """From the checkpoint alone: pod and claim are gone from the API."""
    driver = lab.driver()
    await lab.make_claim("gpu")
    async with driver.running(lab.registry):
        async with lab.kubelet():
            await lab.start_pod("pod", "gpu")
            await lab.until_running("pod")
        await lab.delete_pod("pod", force=True)
        await lab.delete_claim("gpu")
        async with lab.kubelet():
            await until_forgotten(lab)
    assert driver.prepared == [["gpu"]]
    assert driver.unprepared == [["gpu"]]


async def test_an_unprepare_that_failed_before_a_restart_succeeds_after_it(lab: Lab) -> None:
    """The pod stays Terminating over the restart."""
    driver = lab.driver()
    await lab.make_claim("gpu")
    async with driver.running(lab.registry):
        async with lab.kubelet():
            await lab.start_pod("pod", "gpu")
            await lab.until_running("pod")
            driver.unprepare_script = ["busy"] * 1000
            await lab.delete_pod("pod")
            await until_unprepared(driver, ["gpu"], ["gpu"])
        driver.unprepare_script = []
        assert await lab.pod("pod") is not None
        async with lab.kubelet():
            await lab.until_gone("pod")


async def test_a_force_deleted_pod_s_claim_is_unprepared_and_its_successor_waits(lab: Lab) -> None:
    """A new claim of the same name is blocked until the old one is given back."""
    driver = lab.driver()
    driver.unprepare_script = ["busy"] * 1000
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "gpu")
        await lab.until_running("pod")
        await lab.delete_pod("pod", force=True)
        await lab.delete_claim("gpu")
        await lab.make_claim("gpu")
        await lab.start_pod("pod", "gpu")
        await lab.until_failing("pod", "still exists (previous pod force-deleted?!)")
        assert driver.prepared == [["gpu"]]
        driver.unprepare_script = []
        await lab.until_running("pod")
    assert driver.prepared == [["gpu"], ["gpu"]]


async def test_the_newest_connected_instance_of_a_driver_gets_the_calls(lab: Lab) -> None:
    """A rolling update: the old one takes over again when the new one breaks."""
    old = lab.driver()
    new = lab.driver(instance="2", services=["v1.DRAPlugin", "v1.DRAResourceHealth"])

    async def connected() -> bool:
        return bool(new.watched)

    for name in ("one", "two", "three"):
        await lab.make_claim(name)
    async with old.running(lab.registry), lab.kubelet():
        await lab.start_pod("first", "one")
        await lab.until_running("first")
        async with new.running(lab.registry):
            await eventually(connected)
            await lab.start_pod("second", "two")
            await lab.until_running("second")
        await lab.start_pod("third", "three")
        await lab.until_running("third")
    assert old.prepared == [["one"], ["three"]]
    assert new.prepared == [["two"]]


async def test_a_registered_instance_without_connection_is_passed_over(lab: Lab) -> None:
    """A broken new version registers and never serves: the old one goes on."""
    old, new = lab.driver(), lab.driver(instance="2")
    await lab.make_claim("gpu")
    async with old.running(lab.registry), new.registering(lab.registry), lab.kubelet():
        await lab.until_registered(old, new)
        await lab.start_pod("pod", "gpu")
        await lab.until_running("pod")
    assert old.prepared == [["gpu"]]


async def test_the_dra_service_may_come_after_the_registration(lab: Lab) -> None:
    """And may go and come again: the connection follows."""
    driver = lab.driver()
    for name in ("one", "two"):
        await lab.make_claim(name)
    async with driver.registering(lab.registry), lab.kubelet():
        await lab.until_registered(driver)
        await lab.start_pod("first", "one")
        await lab.until_failing("first", "UNAVAILABLE")
        async with driver.serving():
            await lab.until_running("first")
        await asyncio.sleep(0.1)
        async with driver.serving():
            await lab.start_pod("second", "two")
            await lab.until_running("second")
    assert driver.registrations == [(True, "")]


async def test_a_driver_that_goes_in_the_middle_of_a_call_fails_that_call_only(lab: Lab) -> None:
    """The next instance gets the retry."""
    old, new = lab.driver(), lab.driver(instance="2")
    old.prepare_script = [hang] * 100
    await lab.make_claim("gpu")
    async with lab.kubelet():
        async with old.running(lab.registry):
            await lab.start_pod("pod", "gpu")
            await until_prepared(old, ["gpu"])
        async with new.running(lab.registry):
            await lab.until_running("pod")


async def test_the_node_is_made_once_and_is_ready(lab: Lab) -> None:
    """Its version is the API server's; a node that exists is taken over."""
    for _ in range(2):
        async with lab.kubelet():

            async def ready() -> bool:
                listing = await lab.api.list(kinds.NODE)
                return any(node.get("status", {}).get("conditions") for node in listing.items)

            await eventually(ready)
    node = await lab.api.get(kinds.NODE, "node-1")
    assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.37.1"
    assert [(c["type"], c["status"]) for c in node["status"]["conditions"]] == [("Ready", "True")]
