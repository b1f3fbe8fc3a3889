"""Health as pods show it; the driver's side is our own service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.local import LocalApi
from dra_driver.sandbox.apiserver.store import Store
from dra_driver.sandbox.kubelet.kubelet import Kubelet
from kubelet_plugin.health_service import DeviceHealth, Health, HealthService
from tests.passing_time import pass_time
from tests.sandbox.kubelet.driver import Driver
from tests.sandbox.kubelet.lab import NODE, Lab, eventually

DRA, V1, V1ALPHA1 = "v1.DRAPlugin", "v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth"
VERSIONS = pytest.mark.parametrize("service", [V1, V1ALPHA1])


def tell(driver: Driver, health: Health, message: str = "", claim: str = "gpu") -> None:
    """The driver says this of the device of the claim."""
    found = DeviceHealth(health=health, message=message)
    driver.board.update({**driver.board.current, (NODE, f"{claim}-gpu"): found}, 0.0)


def shown(health: str, message: str = "", claim: str = "gpu") -> JsonObject:
    """What a pod is to say of it."""
    said = {"message": message} if message else {}
    return {"resourceID": f"a.example.com/claim={claim}-gpu", "health": health, **said}


@VERSIONS
async def test_a_pod_shows_how_its_device_is(lab: Lab, service: str) -> None:
    """Healthy, unhealthy with the reason, and healthy again, at once; under the name of claim and CDI device."""
    driver = lab.driver(services=[DRA, service])
    tell(driver, Health.HEALTHY)
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "gpu")
        await lab.until_health("pod", shown("Healthy"))
        tell(driver, Health.UNHEALTHY, "ECC error")
        await lab.until_health("pod", shown("Unhealthy", "ECC error"))
        tell(driver, Health.HEALTHY)
        await lab.until_health("pod", shown("Healthy"))
        [status] = (await lab.until_running("pod"))["status"]["containerStatuses"]
        assert status["allocatedResourcesStatus"][0]["name"] == "claim:gpu"
        assert status["ready"]
    assert driver.watched == [service]


@VERSIONS
async def test_health_is_unknown_while_the_driver_is_away(lab: Lab, service: str) -> None:
    """The end of the stream is the end of knowledge; a driver that comes back is asked again, on the same registration."""
    driver = lab.driver(services=[DRA, service])
    tell(driver, Health.HEALTHY)
    await lab.make_claim("gpu")
    async with lab.kubelet(), driver.registering(lab.registry):
        async with driver.serving():
            await lab.start_pod("pod", "gpu")
            await lab.until_health("pod", shown("Healthy"))
        await lab.until_health("pod", shown("Unknown"))
        async with driver.serving():
            await lab.until_health("pod", shown("Healthy"))
    assert len(driver.registrations) == 1
    assert driver.watched == [service] * 2


async def test_the_newest_version_of_the_stream_is_used(lab: Lab) -> None:
    """Whatever the plugin's order."""
    driver = lab.driver(services=[DRA, V1ALPHA1, V1])
    async with driver.running(lab.registry), lab.kubelet():
        await until_watched(driver, V1)


async def test_a_driver_that_offers_no_health_is_not_asked(lab: Lab) -> None:
    """Its devices are shown as unknown."""
    driver = lab.driver()
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "gpu")
        await lab.until_health("pod", shown("Unknown"))
    assert driver.watched == []


async def test_every_pod_shows_its_own_devices(lab: Lab) -> None:
    """Also two of one claim; a device that the driver does not name is unknown."""
    driver = lab.driver(services=[DRA, V1])
    tell(driver, Health.UNHEALTHY, claim="one")
    for name in ("one", "two"):
        await lab.make_claim(name)
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("first", "one", "two")
        await lab.start_pod("second", "two")
        pods = [await lab.pod(name) or {} for name in ("first", "second")]
        await lab.reserve("two", *pods)
        one, two = shown("Unhealthy", claim="one"), shown("Unknown", claim="two")
        await lab.until_health("first", one, two)
        await lab.until_health("second", two)


async def test_a_container_that_names_a_request_shows_that_one_only(lab: Lab) -> None:
    """And says so in the entry's name."""
    driver = lab.driver(services=[DRA, V1])
    driver.requests = {"gpu": ("a", "b")}
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "gpu", requests=["b"])
        [status] = (await lab.until_running("pod"))["status"]["containerStatuses"]
    assert status["allocatedResourcesStatus"] == [
        {
            "name": "claim:gpu/b",
            "resources": [{"resourceID": "a.example.com/claim=gpu-b", "health": "Unknown"}],
        }
    ]


class Silent(HealthService):
    """Says what is, once, and then nothing any more, but does not hang up."""

    async def NodeWatchResources(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        yield await anext(super().NodeWatchResources(request, context))
        await asyncio.Event().wait()


async def test_silence_is_believed_for_the_device_s_time_out(lab: Lab) -> None:
    """Then it is unknown, though the stream is open."""
    driver = lab.driver(services=[DRA, V1])
    driver.health_type = Silent
    tell(driver, Health.HEALTHY)
    await lab.make_claim("gpu")
    async with lab.kubelet(), driver.running(lab.registry):
        await lab.start_pod("pod", "gpu")
        await lab.until_health("pod", shown("Healthy"))
        pass_time(driver.health_timeout_s)
        await lab.until_health("pod", shown("Unknown"))
        assert driver.watched == [V1]


async def test_heartbeats_keep_it_known(lab: Lab) -> None:
    """For longer than the time-out, without any change."""
    driver = lab.driver(services=[DRA, V1])
    tell(driver, Health.HEALTHY)
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet() as kubelet:
        await lab.start_pod("pod", "gpu")
        await lab.until_health("pod", shown("Healthy"))
        before = await lab.until_running("pod")
        for _ in range(4):
            known = believed_until(kubelet, driver)
            pass_time(driver.health_timeout_s / 3)
            await until_renewed(kubelet, driver, known)
        assert await lab.until_running("pod") == before


def believed_until(kubelet: Kubelet, driver: Driver) -> float:
    """In the loop's time; 0 for a device that is not believed any more."""
    return kubelet._health.of(driver.name, NODE, "gpu-gpu").until


async def until_renewed(kubelet: Kubelet, driver: Driver, known: float) -> None:
    """The kubelet has heard of the device again."""

    async def renewed() -> bool:
        return believed_until(kubelet, driver) > known

    await eventually(renewed)


class Unable(HealthService):
    """Offered, but not there."""

    async def NodeWatchResources(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no")
        yield


async def test_a_stream_that_is_not_implemented_is_not_asked_for_again(lab: Lab) -> None:
    """Until the driver registers anew; its claims are prepared all the same."""
    driver = lab.driver(services=[DRA, V1])
    driver.health_type = Unable
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await until_watched(driver, V1)
        await lab.start_pod("pod", "gpu")
        await lab.until_health("pod", shown("Unknown"))
        await asyncio.sleep(0.2)  # four times the wait before another try
    assert driver.watched == [V1]


@pytest.mark.parametrize(
    ("version", "watched", "expected"),
    [
        ((1, 35, 0), [], []),
        ((1, 36, 0), [V1ALPHA1], [shown("Unhealthy")]),
        ((1, 37, 0), [V1], [shown("Unhealthy", "ECC error")]),
    ],
    ids=["1.35", "1.36", "1.37"],
)
async def test_what_is_shown_depends_on_the_version(
    lab: Lab, version: tuple[int, int, int], watched: list[str], expected: list[JsonObject]
) -> None:
    """Nothing while the gate is off; then v1alpha1 without the reason; then v1 with it."""
    lab.api = LocalApi(Store(), version=version)
    driver = lab.driver(services=[DRA, V1, V1ALPHA1])
    tell(driver, Health.UNHEALTHY, "ECC error")
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "gpu")
        await lab.until_health("pod", *expected)
    assert driver.watched == watched


async def until_watched(driver: Driver, *services: str) -> None:
    async def watched() -> bool:
        return driver.watched == list(services)

    await eventually(watched)
