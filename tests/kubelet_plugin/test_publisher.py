"""The publisher among others who write, wipe and refuse, in virtual time."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from dra_driver.model.errors import Unavailable
from dra_driver.model.inventory import Inventory
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.sandbox.apiserver.gates import Gates
from kubelet_plugin.capability import decide
from tests.kubelet_plugin.publishing import Call, Lab, new_lab, small_inventory


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    """Two small GPUs."""
    return small_inventory(tmp_path)


@pytest.fixture
async def lab(inventory: Inventory) -> Lab:
    """A node that publishes them."""
    return await new_lab(inventory)


async def _tamper(lab: Lab) -> str:
    """Somebody changes a device slice; its name."""
    item = (await lab.slices())[-1]
    item["spec"]["devices"][0]["attributes"]["index"] = {"int": 99}
    await lab.world.replace(RESOURCE_SLICE, item)
    return str(item["metadata"]["name"])


async def test_what_is_right_is_never_written_again(lab: Lab) -> None:
    """An hour costs two lists every five to ten minutes (ours, and the node's), and no write."""
    async with lab.running():
        writes, lists = lab.api.count("create", "replace", "delete"), lab.api.count("list")
        await lab.clock.advance(3600)
        assert lab.api.count("create", "replace", "delete") == writes == 3
        assert 12 <= lab.api.count("list") - lists <= 24
        assert lab.publisher.published.is_set()


async def test_a_change_that_no_watch_reports_is_found(lab: Lab) -> None:
    """Within ten minutes, by the periodic list."""
    async with lab.running(watching=False):
        before = await lab.devices()
        await _tamper(lab)
        await lab.clock.advance(600)
        assert await lab.devices() == before


async def test_a_name_that_is_taken_is_told_and_waited_for(lab: Lab) -> None:
    """Another driver's slice has the name of ours: an Event says which, a try a minute at last, all is well once it is gone."""
    name = "00001-nvidia-n-gpu.dra-driver.dev"
    pool = {"name": "other", "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": "other.example.com", "nodeName": "elsewhere", "pool": pool}
    await lab.world.create(RESOURCE_SLICE, {"metadata": {"name": name}, "spec": spec})
    async with lab.running():
        await lab.clock.advance(600)
        assert lab.api.count("create") <= 20
        (message,) = {message for reason, message in lab.events.said if reason == "SliceNameTaken"}
        assert f"slice {name} belongs to driver other.example.com on node elsewhere" in message
        assert not lab.publisher.published.is_set()
        await lab.world.delete(RESOURCE_SLICE, name)
        await lab.clock.advance(60)
        assert await lab.is_complete()
        assert lab.publisher.published.is_set()


async def test_a_create_that_conflicts_backs_off(lab: Lab) -> None:
    """A slice that is there whenever it is created, and never when slices are listed, is tried with growing pauses."""

    async def race(call: Call) -> None:
        if call.verb == "create":
            body = {"metadata": {"name": call.name}, "spec": _spec(lab)}
            await lab.world.create(RESOURCE_SLICE, body)
        elif call.verb == "list":
            await lab.wipe()

    lab.api.before = race
    async with lab.running():
        await lab.clock.advance(600)
        assert 5 <= lab.api.count("create") <= 20


def _spec(lab: Lab) -> dict[str, object]:
    pool = {"name": "n/nvidia", "generation": 1, "resourceSliceCount": 1}
    return {"driver": "gpu.dra-driver.dev", "nodeName": lab.state.node, "pool": pool}


async def test_a_replace_that_conflicts_is_tried_again_at_once(lab: Lab) -> None:
    """Somebody writes between our list and our write: half a second later all is right, in three writes or fewer."""
    async with lab.running():
        right = await lab.devices()
        await _tamper(lab)
        conflicts = iter([True, False])

        async def interfere(call: Call) -> None:
            if call.verb == "replace" and next(conflicts, False):
                item = await lab.world.get(RESOURCE_SLICE, call.name)
                item["metadata"]["labels"] = {"touched": "yes"}
                await lab.world.replace(RESOURCE_SLICE, item)

        lab.api.before = interfere
        await lab.clock.advance(1)
        assert await lab.devices() == right
        assert lab.api.count("replace") <= 3


async def test_a_second_writer_is_never_fought(lab: Lab) -> None:
    """It undoes each write at once, for ten minutes: six writes a minute to a slice at most; when it stops, all is right in a minute."""
    async with lab.running():
        right = await lab.devices()
        fighting = True

        async def undo(call: Call) -> None:
            if fighting and call.verb == "list":
                await _tamper(lab)

        lab.api.before = undo
        await _tamper(lab)
        lab.api.calls.clear()
        for _ in range(600):
            await lab.clock.advance(1)
            await _tamper(lab)
        writes = [call for call in lab.api.calls if call.verb in ("create", "replace")]
        for name in Counter(call.name for call in writes):
            times = [call.at for call in writes if call.name == name]
            assert all(later - first >= 60 for first, later in zip(times, times[6:], strict=False))
            assert len(times) >= 40
        fighting = False
        await lab.clock.advance(61)
        assert await lab.devices() == right


async def test_a_foreign_generation_costs_one_write_a_slice(lab: Lab) -> None:
    """Somebody's newer generation of our pool would hide all our slices: it goes, and ours get a newer one yet."""
    async with lab.running():
        lab.api.calls.clear()
        pool = {"name": "n/nvidia", "generation": 7, "resourceSliceCount": 1}
        body = {"metadata": {"name": "intruder"}, "spec": _spec(lab) | {"pool": pool}}
        await lab.world.create(RESOURCE_SLICE, body)
        await lab.clock.advance(1)
        assert await lab.is_complete()
        assert {item["spec"]["pool"]["generation"] for item in await lab.slices()} == {8}
        assert max(Counter(call.name for call in lab.api.calls if call.name).values()) == 1


async def test_slices_that_are_always_deleted_come_back_ever_more_slowly(lab: Lab) -> None:
    """From a quarter of a second up to half a minute, and six times a minute at most."""
    async with lab.running():
        lab.api.calls.clear()
        for _ in range(6000):
            await lab.wipe()
            await lab.clock.advance(0.1)
        created = [
            call.at for call in lab.api.calls if call.verb == "create" and "00000" in call.name
        ]
        pauses = [later - first for first, later in pairwise(created)]
        assert created[0] - lab.api.calls[0].at <= 0.5
        assert pauses[0] < 1
        assert all(later - first >= 60 for first, later in zip(created, created[6:], strict=False))
        assert all(14 <= pause <= 31 for pause in pauses[6:])
        await lab.clock.advance(31)
        assert await lab.is_complete()


async def test_an_api_server_that_cannot_say_what_it_keeps_is_asked_again(lab: Lab) -> None:
    """Nothing is published on a guess: neither full nor plain."""
    version = lab.api.server_version

    async def unavailable() -> tuple[int, int, int]:
        raise Unavailable("nobody answers")

    lab.api.server_version = unavailable  # type: ignore[method-assign]
    async with lab.running():
        await lab.clock.advance(60)
        assert not await lab.slices()
        assert not lab.events.said
        lab.api.server_version = version  # type: ignore[method-assign]
        await lab.clock.advance(60)
        assert await lab.is_complete()


async def test_an_odd_name_ends_no_publisher(lab: Lab) -> None:
    """Hardware that reports an address of which no name can be made: tried again, and right once it is right."""
    whole = lab.inventory
    odd = replace(whole.gpus[0], pci_address="what?")
    lab.observe(replace(whole, gpus=(odd, *whole.gpus[1:])))
    async with lab.running():
        await lab.clock.advance(60)
        assert not await lab.slices()
        lab.observe(whole)
        await lab.clock.advance(60)
        assert await lab.is_complete()


@pytest.mark.parametrize(
    ("gates", "why"), [(Gates(), ""), (Gates(device_taints=False), "counters")]
)
async def test_mode_and_reason_are_one(gates: Gates, why: str, inventory: Inventory) -> None:
    """FULL needs no reason; PLAIN has one, the same in the Event and on every slice."""
    lab = await new_lab(inventory, gates=gates)
    capability = await decide(lab.world, "n")
    assert why in capability.why
    assert bool(capability.why) == bool(why)
    async with lab.running():
        notes = {tuple(item["metadata"]["annotations"].values()) for item in await lab.slices()}
        assert notes == ({(capability.why,)} if why else {()})
        said = [
            message for reason, message in lab.events.said if reason == "PartitionsNotPublished"
        ]
        assert said == ([f"partitions are not published: {capability.why}"] if why else [])


async def _schedule(lab: Lab, rng: random.Random) -> float:
    """Publish, change something, wipe at some moment (often while it is written); the seconds until all is back."""
    wiped = False

    async def wipe_meanwhile(call: Call) -> None:
        nonlocal wiped
        if not wiped and call.verb in ("replace", "create") and rng.random() < chance:
            wiped = True
            await lab.wipe()

    async with lab.running():
        whole = lab.inventory
        await lab.clock.advance(rng.uniform(0, 90))
        chance = rng.choice([0.0, 0.5])
        lab.api.before = wipe_meanwhile
        lab.observe(type(whole)(vendor=whole.vendor, gpus=tuple(rng.sample(whole.gpus, 1))))
        await lab.clock.advance(rng.choice([0, rng.uniform(0, 0.6), rng.uniform(1, 70)]))
        lab.observe(whole)
        await lab.clock.advance(rng.choice([0, rng.uniform(0, 0.6)]))
        lab.api.before = None
        began = lab.clock.now
        await lab.wipe()
        while not (await lab.is_complete() and len(await lab.devices()) == _ALL):
            await lab.clock.advance(0.05)
            assert lab.clock.now - began < 10
        return lab.clock.now - began


_ALL = 6


async def test_wiped_slices_are_back_within_two_seconds(tmp_path: Path) -> None:
    """R4: at the 99th percentile of 500 schedules, whatever else was being written, and whatever echo was still to come."""
    inventory = small_inventory(tmp_path, profiles=frozenset({"7g.80gb"}))
    took = sorted([await _schedule(await new_lab(inventory), random.Random(s)) for s in range(500)])
    assert took[494] <= 2.0, took[-20:]
