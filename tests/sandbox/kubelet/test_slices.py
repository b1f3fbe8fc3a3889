from __future__ import annotations

import asyncio

from dra_driver.model import kinds
from tests.passing_time import pass_time
from tests.sandbox.kubelet.driver import Driver
from tests.sandbox.kubelet.lab import SHORT, Lab, eventually

DRIVER = "a.example.com"
SERVICES = ["v1.DRAPlugin", "v1.DRAResourceHealth"]


async def until_slices(lab: Lab, *expected: tuple[str, str], pause_s: float = 0.0) -> None:
    """These are left; at each look that much more time has passed."""

    async def there() -> bool:
        pass_time(pause_s)
        return await lab.slices() == list(expected)

    await eventually(there)


async def until_connected(*drivers: Driver) -> None:
    """The kubelet has its connection to them: health is the first that comes over it."""

    async def connected() -> bool:
        return all(driver.watched for driver in drivers)

    await eventually(connected)


async def let_pass(share: float) -> None:
    """So much of the time after which slices are wiped, while the kubelet looks again and again."""
    for _ in range(10):
        pass_time(share * SHORT.wipe_after_s / 10)
        await asyncio.sleep(2 * SHORT.poll_s)


async def test_a_starting_kubelet_wipes_its_own_node_s_slices(lab: Lab) -> None:
    """Of all drivers, whoever they are, and of no other node: drivers publish anew after they registered."""
    for driver in (DRIVER, "b.example.com"):
        await lab.publish_slice(driver)
        await lab.publish_slice(driver, node="node-2")
    async with lab.kubelet():
        await until_slices(lab, (DRIVER, "node-2"), ("b.example.com", "node-2"))


async def test_the_slices_of_a_driver_that_stays_away_are_wiped(lab: Lab) -> None:
    """Its own and of this node only; what it publishes without a kubelet's knowing afterwards is left alone."""
    driver, other = (lab.driver(name, services=SERVICES) for name in (DRIVER, "b.example.com"))
    async with lab.kubelet(), other.running(lab.registry):
        async with driver.running(lab.registry):
            await until_connected(driver, other)
            for name in (DRIVER, "b.example.com"):
                await lab.publish_slice(name)
            await lab.publish_slice(DRIVER, node="node-2")
        await until_slices(
            lab, (DRIVER, "node-2"), ("b.example.com", "node-1"), pause_s=SHORT.wipe_after_s
        )
        await lab.publish_slice(DRIVER)
        await let_pass(1.2)
        assert (DRIVER, "node-1") in await lab.slices()


async def test_a_driver_whose_dra_socket_is_dead_counts_as_away(lab: Lab) -> None:
    """A registration alone keeps nothing: the connection does."""
    driver = lab.driver(services=SERVICES)
    async with lab.kubelet(), driver.registering(lab.registry):
        async with driver.serving():
            await until_connected(driver)
            await lab.publish_slice(DRIVER)
            await let_pass(1.2)
            assert await lab.slices() == [(DRIVER, "node-1")]
        await until_slices(lab, pause_s=SHORT.wipe_after_s)


async def test_the_slices_of_a_driver_that_restarts_quickly_are_kept(lab: Lab) -> None:
    """An upgrade in less than `wipe_after_s` is no absence, however often it happens."""
    driver = lab.driver(services=SERVICES)
    async with lab.kubelet():
        for times in range(6):
            driver.watched.clear()
            async with driver.running(lab.registry):
                await until_connected(driver)
                if times == 0:
                    await lab.publish_slice(DRIVER)
                    published = await lab.api.list(kinds.RESOURCE_SLICE)
                await let_pass(0.2)
            await let_pass(0.8)
        assert (await lab.api.list(kinds.RESOURCE_SLICE)).items == published.items
    assert len(driver.registrations) == 6
