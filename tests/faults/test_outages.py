"""The API server is away for ten minutes (bar R8)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dra_driver.model.errors import Gone
from dra_driver.model.kinds import RESOURCE_CLAIM, RESOURCE_SLICE, Kind
from dra_driver.ports import JsonObject, WatchEvent, beat
from kubelet_plugin.duties import HANDOVER_S
from tests.faults.outage_node import OutageApi, OutageNode, virtual_parts
from tests.faults.virtual_time import LoopClock, run
from tests.kubelet_plugin.conftest import machine_of

OUTAGE_S = 600
CONVERGED_S = 30
ADDRESSES = ("0000:1b:00.0", "0000:43:00.0", "0000:52:00.0", "0000:61:00.0")
GPUS = tuple(f"gpu-{address.replace(':', '-').replace('.', '-')}" for address in ADDRESSES)

Scenario = Callable[[OutageNode], Coroutine[Any, Any, None]]


@pytest.fixture
def in_virtual_time(tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario on a node with four GPUs that has published."""

    def play(scenario: Scenario) -> None:
        async def main() -> None:
            node = OutageNode(tmp_path, machine_of("H100-SXM5-80GB", 4))
            await node.start()
            await scenario(node)
            await node.stop()

        with virtual_parts():
            run(main())

    return play


async def claims_on(node: OutageNode, gpu: str) -> list[JsonObject]:
    """Six partitions of it, prepared."""
    claims = [await node.cluster.new_claim(f"{gpu}-mig-1g-10gb-{start}") for start in range(6)]
    assert [await node.prepare(claim) for claim in claims] == [""] * 6
    return claims


def devices(slices: list[JsonObject]) -> dict[str, list[str]]:
    """Names of all published devices, with the taints of each."""
    return {
        device["name"]: [taint["key"] for taint in device.get("taints", ())]
        for item in slices
        for device in item["spec"].get("devices", ())
    }


def test_replays_and_unprepares_all_succeed(in_virtual_time: Callable[[Scenario], None]) -> None:
    """At any moment of the outage, and at once."""

    async def scenario(node: OutageNode) -> None:
        claims = [*await claims_on(node, GPUS[0]), *await claims_on(node, GPUS[1])]
        node.api.leave()
        loop = asyncio.get_running_loop()
        end = loop.time() + OUTAGE_S
        while claims:
            began = loop.time()
            assert [await node.prepare(claim) for claim in claims] == [""] * len(claims)
            assert await node.unprepare(claims.pop()) == ""
            assert loop.time() - began < 1
            await asyncio.sleep(OUTAGE_S / 12)
        assert loop.time() >= end
        assert node.plugin.leftovers() == []

    in_virtual_time(scenario)


def test_the_api_server_is_asked_once_a_second_at_most(
    in_virtual_time: Callable[[Scenario], None],
) -> None:
    """While pods wait for new claims, slices are wrong and Events are to be written: all together, in every ten seconds."""

    async def scenario(node: OutageNode) -> None:
        held = await claims_on(node, GPUS[0])
        fresh = [await node.cluster.new_claim(gpu) for gpu in GPUS[1:]] * 4
        node.api.leave()
        (node.plugin.folder / "hardware" / "faults.json").write_text(
            json.dumps({ADDRESSES[3]: {"error": "GPU_IS_LOST"}})
        )
        end = asyncio.get_running_loop().time() + OUTAGE_S
        while asyncio.get_running_loop().time() < end:
            waiting = [asyncio.create_task(node.prepare(claim)) for claim in fresh]
            await asyncio.wait(waiting)
            await node.prepare(held[0])
            await asyncio.sleep(45)
        times = node.api.asked_at
        assert len(times) > 10
        known = [
            time for time in times if time > times[0] + 10
        ]  # the outage must be met to be known
        busiest = max(sum(start <= time < start + 10 for time in known) for start in known)
        assert busiest <= 10
        assert len(times) <= OUTAGE_S

    in_virtual_time(scenario)


@pytest.mark.parametrize("longer_s", range(0, 60, 12))
def test_everything_is_right_again_half_a_minute_after_its_return(
    in_virtual_time: Callable[[Scenario], None], longer_s: int
) -> None:
    """Slices that were wiped and hardware that changed meanwhile are published, claims that wait are served, Events are there."""

    async def scenario(node: OutageNode) -> None:
        before = devices(await node.cluster.slices())
        held = await claims_on(node, GPUS[0])
        node.api.leave()
        await asyncio.sleep(100)
        for item in await node.cluster.slices():
            await node.cluster.api.delete(RESOURCE_SLICE, item["metadata"]["name"])
        faults = node.plugin.folder / "hardware" / "faults.json"
        faults.write_text(json.dumps({ADDRESSES[3]: {"error": "GPU_IS_LOST"}}))
        await node.unprepare(held[0])
        await asyncio.sleep(OUTAGE_S - 110 + longer_s)
        fresh = await node.cluster.new_claim(GPUS[1])
        waiting = asyncio.create_task(node.prepare(fresh))
        await asyncio.sleep(10)
        node.api.come_back()
        await asyncio.sleep(CONVERGED_S)
        assert waiting.done()
        assert waiting.result() == ""
        now = devices(await node.cluster.slices())
        lost = {name for name in before if name.startswith(GPUS[3])}
        assert {name for name in before if name not in lost} <= now.keys()
        assert all(now[name] for name in lost & now.keys())
        slices = await node.cluster.slices()
        assert len(slices) == slices[0]["spec"]["pool"]["resourceSliceCount"]
        faults.unlink()
        await asyncio.sleep(CONVERGED_S)
        assert devices(await node.cluster.slices()) == before

    in_virtual_time(scenario)


def late_list(api: OutageApi, may_come: asyncio.Event) -> None:
    """The list from which the watch starts, which is the first one, comes late."""
    ask, turns = api.list, count()

    async def ask_late(*words: Any, **more: Any) -> Any:
        if next(turns) == 0:
            await may_come.wait()
        return await ask(*words, **more)

    setattr(api, "list", ask_late)  # noqa: B010 (a method)


def late_watch(api: OutageApi, may_come: asyncio.Event) -> None:
    """The first watch of slices tells nothing, and at last that it is too old: there is another list."""
    watch, turns = api.watch, count()

    async def watch_late(kind: Kind, **more: Any) -> AsyncGenerator[WatchEvent, None]:
        if kind is RESOURCE_SLICE and next(turns) == 0:
            await may_come.wait()
            raise Gone("too old")
        async for event in watch(kind, **more):
            yield event

    setattr(api, "watch", watch_late)  # noqa: B010 (a method)


@pytest.mark.parametrize("make_late", [late_list, late_watch])
@pytest.mark.parametrize("leads", [True, False], ids=["leads", "newer one leads"])
def test_slices_that_were_wiped_unseen_are_there_again(
    tmp_path: Path, make_late: Callable[[OutageApi, asyncio.Event], None], *, leads: bool
) -> None:
    """A list is empty like the one before, so no change tells what is missing. A newer process's slices are not ours to write."""

    async def main() -> None:
        node, may_come = OutageNode(tmp_path, machine_of("H100-SXM5-80GB", 4)), asyncio.Event()
        make_late(node.api, may_come)
        await node.start()
        before = devices(await node.cluster.slices())
        await beat(LoopClock(), HANDOVER_S)
        await asyncio.sleep(1)  # it has just looked whether it leads
        node.instance.is_newest = leads
        for item in await node.cluster.slices():
            await node.cluster.api.delete(RESOURCE_SLICE, item["metadata"]["name"])
        may_come.set()
        await asyncio.sleep(CONVERGED_S)
        assert devices(await node.cluster.slices()) == (before if leads else {})
        await node.stop()

    with virtual_parts():
        run(main())


def test_claims_that_went_meanwhile_are_released(
    in_virtual_time: Callable[[Scenario], None],
) -> None:
    """Not while nobody can say so; and then as soon as somebody waits for what they hold."""

    async def scenario(node: OutageNode) -> None:
        held = await claims_on(node, GPUS[0])
        node.api.leave()
        for claim in held:
            metadata = claim["metadata"]
            await node.cluster.api.delete(
                RESOURCE_CLAIM, metadata["name"], namespace=metadata["namespace"]
            )
        await asyncio.sleep(OUTAGE_S)
        assert len(node.plugin.state.records) == len(held)
        node.api.come_back()
        fresh = await node.cluster.new_claim(GPUS[0])
        answers = [await node.prepare(fresh) for _ in range(3)]
        assert answers[-1] == ""

    in_virtual_time(scenario)
