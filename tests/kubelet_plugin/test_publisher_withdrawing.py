"""Devices that are not wanted any more leave slowly: tainted, looked for in all claims twice, a minute apart, and only then gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dra_driver.model.claim import ClaimRef
from dra_driver.model.errors import Forbidden
from dra_driver.model.inventory import Fault, Inventory
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.model.record import ClaimRecord, Grant
from dra_driver.rules.publish import PublishMode
from dra_driver.sandbox.apiserver.gates import Gates
from kubelet_plugin.targets import PublishPolicy
from tests.kubelet_plugin.conftest import POOL
from tests.kubelet_plugin.publishing import Call, Lab, new_lab, small_inventory

GONE, STAYING = "gpu-0000-1b-00-0", "gpu-0000-43-00-0"
PARTITION = f"{GONE}-mig-3g-40gb-0"


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    """Two small GPUs."""
    return small_inventory(tmp_path)


@pytest.fixture
async def lab(inventory: Inventory) -> Lab:
    """A node that publishes them."""
    return await new_lab(inventory)


def without_first(lab: Lab, *faults: Fault) -> Inventory:
    """The first GPU is not found any more."""
    return replace(lab.inventory, gpus=lab.inventory.gpus[1:], faults=faults)


async def of_first(lab: Lab) -> dict[str, list[str]]:
    """The devices of the first GPU, monitor apart, and their taints."""
    tainted = await lab.taints()
    names = [name for name in await lab.devices() if name.startswith(GONE)]
    return {name: tainted.get(name, []) for name in names if not name.endswith("monitor")}


def looks(lab: Lab) -> list[float]:
    """When claims were listed, since the first time."""
    times = [
        call.at for call in lab.api.calls if call.verb == "list" and call.kind != "ResourceSlice"
    ]
    return [round(time - times[0], 1) for time in times]


async def test_an_unused_gpu_that_vanished_goes_after_two_looks(lab: Lab) -> None:
    """Tainted at once, in the same generation; gone a minute later; then nobody asks for claims any more."""
    async with lab.running():
        lab.observe(without_first(lab))
        await lab.clock.advance(1)
        assert set(map(tuple, (await of_first(lab)).values())) == {("withdrawn",)}
        assert STAYING not in await lab.taints()
        assert {item["spec"]["pool"]["generation"] for item in await lab.slices()} == {1}
        await lab.clock.advance(58)
        assert len(await of_first(lab)) == 4
        await lab.clock.advance(3)
        assert await of_first(lab) == {}
        assert await lab.is_complete()
        await lab.clock.advance(3600)
        assert looks(lab) == [0, 60]


async def test_what_a_claim_names_stays_until_the_claim_is_gone(lab: Lab) -> None:
    """On its own counters, tainted, looked for once a minute; the GPU's other devices go before."""
    async with lab.running():
        before = await lab.devices()
        await lab.claim(PARTITION)
        lab.observe(without_first(lab))
        await lab.clock.advance(600)
        assert await of_first(lab) == {PARTITION: ["withdrawn"]}
        assert (await lab.devices())[PARTITION]["consumesCounters"] == before[PARTITION][
            "consumesCounters"
        ]
        sets = {
            c["name"] for item in await lab.slices() for c in item["spec"].get("sharedCounters", ())
        }
        assert sets == {GONE, STAYING}
        assert looks(lab) == [60 * number for number in range(10)]
        await lab.release()
        await lab.clock.advance(121)
        assert await of_first(lab) == {}


async def test_what_this_node_holds_stays_though_no_claim_is_left(lab: Lab) -> None:
    """A pod deleted by force is gone from the API before its device is given back."""
    async with lab.running():
        ref = ClaimRef(namespace="default", name="gone", uid="u")
        grant = Grant(device=PARTITION, pool=POOL, requests=("r",), gpu="0000:1b:00.0")
        lab.state.reserve(ClaimRecord(claim=ref, boot_id="boot", owner="test", grants=(grant,)))
        lab.observe(without_first(lab))
        await lab.clock.advance(600)
        assert await of_first(lab) == {PARTITION: ["withdrawn"]}
        lab.state.forget("u")
        await lab.clock.advance(121)
        assert await of_first(lab) == {}


async def test_an_allocation_that_was_on_its_way_is_seen_by_the_second_look(lab: Lab) -> None:
    """A scheduler that had not seen the taint yet writes its claim after the first look."""
    async with lab.running():
        lab.observe(without_first(lab))
        await lab.clock.advance(5)
        assert looks(lab) == [0]
        await lab.claim(PARTITION)
        await lab.clock.advance(300)
        assert await of_first(lab) == {PARTITION: ["withdrawn"]}


async def test_a_device_that_is_wanted_again_loses_the_taint(lab: Lab) -> None:
    """In the same generation, and an earlier clean look counts for nothing the next time."""
    whole = lab.inventory
    async with lab.running():
        for _ in range(5):
            lab.observe(without_first(lab))
            await lab.clock.advance(50)
            assert len(await of_first(lab)) == 4
            lab.observe(whole)
            await lab.clock.advance(20)
            assert await lab.taints() == {}
        assert {item["spec"]["pool"]["generation"] for item in await lab.slices()} == {1}


LONG_AGO = "2020-01-01T00:00:00Z"


async def date_back(lab: Lab) -> None:
    """As if all taints had been there for years."""
    for item in await lab.slices():
        for device in item["spec"].get("devices", ()):
            for taint in device.get("taints", ()):
                taint["timeAdded"] = LONG_AGO
        await lab.world.replace(RESOURCE_SLICE, item)


async def withdrawn_since(lab: Lab) -> set[str]:
    """The times of all taints of what is leaving."""
    taints = [taint for one in (await lab.devices()).values() for taint in one.get("taints", ())]
    return {taint["timeAdded"] for taint in taints if taint["key"].endswith("/withdrawn")}


async def test_a_new_process_withdraws_nothing_at_once(lab: Lab) -> None:
    """It knows nothing but what is stored: a GPU that vanished meanwhile is tainted first, and the taint keeps its time."""
    async with lab.running():
        await lab.claim(PARTITION)
    lab.inventory = without_first(lab)
    lab.begin()
    async with lab.running():
        assert len(await of_first(lab)) == 4
        await date_back(lab)
    lab.begin()
    async with lab.running():
        await lab.clock.advance(300)
        assert await of_first(lab) == {PARTITION: ["withdrawn"]}
        assert await withdrawn_since(lab) == {LONG_AGO}


async def test_wiped_slices_come_back_with_what_is_leaving(lab: Lab) -> None:
    """A kubelet that restarts frees no counters of a device that is in use; the taint is as old as it was."""
    async with lab.running():
        await lab.claim(PARTITION)
        lab.observe(without_first(lab))
        await lab.clock.advance(130)
        await date_back(lab)
        await lab.clock.advance(1)
        before = await lab.devices()
        await lab.wipe()
        await lab.clock.advance(2)
        assert await lab.is_complete()
        after = await lab.devices()
        assert after[PARTITION] == before[PARTITION]
        assert after.keys() == before.keys()
        assert await withdrawn_since(lab) == {LONG_AGO}


async def test_what_somebody_else_put_there_goes_at_once(lab: Lab) -> None:
    """The rule is for what this plugin offered: a made-up device in our slice is nobody's."""
    async with lab.running():
        item = (await lab.slices())[-1]
        item["spec"]["devices"].insert(0, {"name": "made-up"})
        await lab.world.replace(RESOURCE_SLICE, item)
        await lab.clock.advance(1)
        assert "made-up" not in await lab.devices()


async def test_without_the_right_to_list_claims_everything_stays(lab: Lab) -> None:
    """And what else is to be published is published."""

    async def forbid(call: Call) -> None:
        if call.verb == "list" and call.kind == "ResourceClaim":
            raise Forbidden("resourceclaims is forbidden", status=403)

    lab.api.before = forbid
    async with lab.running():
        lab.observe(without_first(lab))
        await lab.clock.advance(600)
        assert len(await of_first(lab)) == 4
        assert lab.publisher.published.is_set()
        lab.api.before = None
        await lab.clock.advance(130)
        assert await of_first(lab) == {}


async def test_a_gpu_that_does_not_answer_stays_tainted_until_it_does(lab: Lab) -> None:
    """However long that takes, without asking for claims; its siblings are not touched."""
    whole = lab.inventory
    async with lab.running():
        lab.observe(without_first(lab, Fault(pci_address="0000:1b:00.0", message="fell off")))
        await lab.clock.advance(1)
        assert set(map(tuple, (await of_first(lab)).values())) == {("unhealthy",)}
        await lab.clock.advance(3600)
        assert len(await of_first(lab)) == 4
        assert not lab.api.count("list", kind="ResourceClaim")
        lab.observe(whole)
        await lab.clock.advance(1)
        assert await lab.taints() == {}


async def test_a_driver_that_is_unloaded_leaves_no_pool_behind(lab: Lab) -> None:
    """No backend fills the pool any more: its slices go, too, once nobody uses them."""
    async with lab.running():
        await lab.claim(PARTITION)
    lab.begin()
    lab.state._inventories.clear()
    async with lab.running():
        await lab.clock.advance(300)
        assert list(await lab.devices()) == [PARTITION]
        await lab.release()
        await lab.clock.advance(121)
        assert await lab.slices() == []


PLAIN = Gates(partitionable_devices=False, device_taints=False)


async def test_plain_devices_go_when_no_claim_names_them(inventory: Inventory) -> None:
    """There are no taints to wait for; one that is named stays as it is, and comes back when it is wiped."""
    lab = await new_lab(inventory, gates=PLAIN)
    async with lab.running():
        await lab.claim(GONE)
        lab.observe(without_first(lab))
        await lab.clock.advance(300)
        assert await of_first(lab) == {GONE: []}
        await lab.wipe()
        await lab.clock.advance(2)
        assert await of_first(lab) == {GONE: []}
        await lab.release()
        await lab.clock.advance(61)
        assert await of_first(lab) == {}
        lab.observe(inventory)
        await lab.clock.advance(1)
        lab.observe(without_first(lab))
        await lab.clock.advance(61)
        assert await of_first(lab) == {}


async def test_a_change_of_the_mode_keeps_what_is_used(inventory: Inventory) -> None:
    """FULL, then PLAIN: a claimed partition alone is left of its GPU; after it the whole GPU is offered."""
    lab = await new_lab(inventory)
    async with lab.running():
        await lab.claim(PARTITION)
    lab.policy = PublishPolicy(mode=PublishMode.PLAIN)
    lab.begin()
    async with lab.running():
        assert sorted(await lab.devices()) == [PARTITION, STAYING]
        assert "consumesCounters" not in (await lab.devices())[PARTITION]
        await lab.release()
        await lab.clock.advance(61)
        assert sorted(await lab.devices()) == [GONE, STAYING]
