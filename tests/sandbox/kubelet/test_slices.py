from __future__ import annotations

import asyncio

from dra_driver.model import kinds
from tests.sandbox.kubelet.driver import Driver
from tests.sandbox.kubelet.lab import Lab, eventually

DRIVER = "a.example.com"


async def until_slices(lab: Lab, *expected: tuple[str, str]) -> None:
    async def there() -> bool:
        return await lab.slices() == list(expected)

    await eventually(there)


async def test_a_starting_kubelet_wipes_its_own_node_s_slices(lab: Lab) -> None:
    """Of all drivers, whoever they are, and of no other node: drivers publish anew after they registered."""
    for driver in (DRIVER, "b.example.com"):
        await lab.publish_slice(driver)
        await lab.publish_slice(driver, node="node-2")
    async with lab.kubelet():
        await until_slices(lab, (DRIVER, "node-2"), ("b.example.com", "node-2"))


async def test_the_slices_of_a_driver_that_stays_away_are_wiped(lab: Lab) -> None:
    """Its own and of this node only; what it publishes without a kubelet's knowing afterwards is left alone."""
    driver, other = lab.driver(), lab.driver("b.example.com")
    async with lab.kubelet(), other.running(lab.registry):
        async with driver.running(lab.registry):
            await lab.until_registered(driver, other)
            for name in (DRIVER, "b.example.com"):
                await lab.publish_slice(name)
            await lab.publish_slice(DRIVER, node="node-2")
        await until_slices(lab, (DRIVER, "node-2"), ("b.example.com", "node-1"))
        await lab.publish_slice(DRIVER)
        await asyncio.sleep(0.6)
        assert (DRIVER, "node-1") in await lab.slices()


async def test_a_driver_whose_dra_socket_is_dead_counts_as_away(lab: Lab) -> None:
    """A registration alone keeps nothing: the connection does."""
    driver = lab.driver()
    async with lab.kubelet(), driver.registering(lab.registry):
        async with driver.serving():
            await lab.until_registered(driver)
            await lab.publish_slice(DRIVER)
            await asyncio.sleep(0.6)
            assert await lab.slices() == [(DRIVER, "node-1")]
        await until_slices(lab)


async def test_the_slices_of_a_driver_that_restarts_quickly_are_kept(lab: Lab) -> None:
    """An upgrade in less than `wipe_after_s` is no absence, however often it happens."""
    driver = lab.driver()
    async with lab.kubelet():
        for times in range(1, 7):
            async with driver.running(lab.registry):
                await until_registrations(driver, times)
                if times == 1:
                    await lab.publish_slice(DRIVER)
                    published = await lab.api.list(kinds.RESOURCE_SLICE)
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.1)
        assert (await lab.api.list(kinds.RESOURCE_SLICE)).items == published.items


async def until_registrations(driver: Driver, times: int) -> None:
    async def registered() -> bool:
        return len(driver.registrations) == times

    await eventually(registered)
