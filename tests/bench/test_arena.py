"""What the benchmark's own programs promise, with our plugin as the driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.bench.arena import Arena, two_kubelets
from tests.bench.contender import Contender, is_complete
from tests.bench.recipes import OURS


@pytest.fixture
async def contender() -> AsyncIterator[Contender]:
    """Our plugin, started."""
    async with two_kubelets() as (kubelet, onlooker):
        arena = Arena(
            rounds=1, serial_claims=1, ours=OURS, peers=(), kubelet=kubelet, onlooker=onlooker
        )
        async with arena.contender(OURS) as started:
            yield started


async def test_a_driver_sees_that_its_slices_are_gone(contender: Contender) -> None:
    """The watch tells what happened after the list: a driver that is told nothing would never publish again."""
    await contender.api.wipe_slices()
    async with asyncio.timeout(30):
        while not is_complete((await contender.api.report())["slices"]):  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.02)


async def test_an_outage_is_one(contender: Contender) -> None:
    """Held claims are exactly as many as asked for; what is asked for in an outage was counted, and is served after it."""
    await contender.hold(3)
    assert len(list((contender.folder / "cdi").glob("*.json"))) == 3
    await contender.hold(1)
    assert len(list((contender.folder / "cdi").glob("*.json"))) == 1
    await contender.api.set_outage(is_down=True)
    before = await contender.api.requests()
    asking = asyncio.create_task(contender.call("prepare", await contender.new_claims(1)))
    while not (await contender.api.requests() - before)["get resourceclaims"]:  # noqa: ASYNC110 (another process counts)
        await asyncio.sleep(0.05)
    await contender.api.set_outage(is_down=False)
    answer, _ = await asking
    assert answer["errors"] == []
