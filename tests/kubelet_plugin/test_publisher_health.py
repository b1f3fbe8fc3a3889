"""What is wrong with GPUs, in the slices: one write for each slice that is concerned, and gone again with the trouble."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dra_driver.model.device import Placement
from dra_driver.model.health import Ailment, Cause, Severity
from dra_driver.model.inventory import Fault, Inventory
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.rules.health import CLEAR_S, ESCALATE_S
from dra_driver.sandbox.apiserver.gates import Gates
from kubelet_plugin.casebook import Casebook
from tests.kubelet_plugin.publishing import Lab, new_lab, small_inventory

GPU, NAME, OTHER = "0000:1b:00.0", "gpu-0000-1b-00-0", "gpu-0000-43-00-0"
LOWER, UPPER = f"{NAME}-mig-3g-40gb-0", f"{NAME}-mig-3g-40gb-4"
LOOK_S = 6.0
LONG_AGO = "2020-01-01T00:00:00Z"

HOT = Ailment(cause=Cause.THERMAL, severity=Severity.DEGRADED, message="too hot")
XID = Ailment(
    cause=Cause.DRIVER_ERROR, severity=Severity.BROKEN, message="XID 119: dead", detail="119"
)


class Ward:
    """A node's publisher, and how its first GPU is."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.casebook = Casebook(lab.state, lab.clock, on_broken="NoSchedule")

    async def look(self, *found: Ailment, for_s: float = LOOK_S) -> None:
        """Look after look finds this, for that long."""
        for _ in range(int(for_s // LOOK_S)):
            self.casebook.note(GPU, found)
            await self.lab.clock.advance(LOOK_S)

    def restart(self) -> None:
        """A new process, which has not looked yet."""
        self.lab.begin()
        self.casebook = Casebook(self.lab.state, self.lab.clock, on_broken="NoSchedule")

    async def taints(self) -> dict[str, list[tuple[str, str, str]]]:
        """Key, value and effect of all devices that have any, monitors apart."""
        return {
            name: [
                (one["key"].rpartition("/")[2], one.get("value", ""), one["effect"])
                for one in device["taints"]
            ]
            for name, device in (await self.lab.devices()).items()
            if "taints" in device and not name.endswith("-monitor")
        }

    async def backdate(self) -> None:
        """Let the stored taints be old ones."""
        for item in await self.lab.slices():
            for device in item["spec"].get("devices", ()):
                for taint in device.get("taints", ()):
                    taint["timeAdded"] = LONG_AGO
            await self.lab.world.replace(RESOURCE_SLICE, item)

    async def times(self) -> set[str]:
        """Since when they have those of XIDs."""
        return {
            one["timeAdded"]
            for device in (await self.lab.devices()).values()
            for one in device.get("taints", ())
            if one["key"].endswith("driver-error")
        }


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    """Two small GPUs."""
    return small_inventory(tmp_path)


@pytest.fixture
async def ward(inventory: Inventory) -> Ward:
    """A node that publishes them."""
    return Ward(await new_lab(inventory))


async def test_a_broken_gpu_is_tainted_by_one_write_and_freed_by_another(ward: Ward) -> None:
    """All its devices, no other's, in the same generation; Events say why, and that it is over."""
    async with ward.lab.running():
        writes = ward.lab.api.count("replace", "create", "delete")
        await ward.look(XID)
        tainted = await ward.taints()
        expected = [("driver-error", "119", "NoSchedule")]
        assert tainted == dict.fromkeys((LOWER, UPPER, f"{NAME}-mig-7g-80gb-0", NAME), expected)
        assert ward.lab.api.count("replace", "create", "delete") == writes + 1
        await ward.look(XID, for_s=600)
        assert ward.lab.api.count("replace", "create", "delete") == writes + 1
        await ward.look(for_s=CLEAR_S + 2 * LOOK_S)
        assert await ward.taints() == {}
        assert ward.lab.api.count("replace", "create", "delete") == writes + 2
    assert ward.lab.events.said == [
        ("GpuUnhealthy", f"GPU {GPU}: XID 119: dead; no new claim gets it"),
        ("GpuRecovered", f"GPU {GPU}: what was wrong is over"),
    ]


async def test_a_degraded_gpu_is_marked_and_later_kept_from_claims(ward: Ward) -> None:
    """Two writes in ten minutes, two Events."""
    async with ward.lab.running():
        writes = ward.lab.api.count("replace")
        await ward.look(HOT, for_s=ESCALATE_S - LOOK_S)
        assert (await ward.taints())[NAME] == [("thermal", "", "None")]
        await ward.look(HOT, for_s=4 * LOOK_S)
        assert (await ward.taints())[NAME] == [("thermal", "", "NoSchedule")]
        assert ward.lab.api.count("replace") == writes + 2
    assert [reason for reason, _ in ward.lab.events.said] == ["GpuUnhealthy"] * 2


async def test_a_symptom_that_flickers_writes_little(ward: Ward) -> None:
    """Half an hour of a GPU that is too hot at every second look: one mark, until it escalates."""
    async with ward.lab.running():
        writes = ward.lab.api.count("replace")
        for _ in range(150):
            await ward.look(HOT)
            await ward.look()
        assert ward.lab.api.count("replace") == writes + 2


async def test_errors_that_take_turns_write_little(ward: Ward) -> None:
    """Each has its Event; the taint names the one that came first, at every look."""
    one, other = (replace(XID, severity=Severity.DEGRADED, detail=xid) for xid in ("94", "92"))
    async with ward.lab.running():
        writes = ward.lab.api.count("replace")
        for _ in range(10):
            await ward.look(one)
            await ward.look(other)
        assert (await ward.taints())[NAME] == [("driver-error", "94", "None")]
        assert ward.lab.api.count("replace") == writes + 1
    assert len(ward.lab.events.said) == 2


async def test_errors_that_are_counted_are_told_once(ward: Ward) -> None:
    """Each look has another count in its message."""
    async with ward.lab.running():
        for number in range(10):
            await ward.look(replace(HOT, cause=Cause.MEMORY_ERROR, message=f"{number} errors"))
    assert ward.lab.events.said == [("GpuUnhealthy", f"GPU {GPU}: 0 errors")]


async def test_a_burst_of_errors_is_two_writes_at_most(ward: Ward) -> None:
    """Sixty-four at once, of all kinds."""
    burst = [
        replace(XID, detail=str(number), severity=severity, cause=cause)
        for number in range(4)
        for severity in Severity
        for cause in Cause
    ]
    async with ward.lab.running():
        writes = ward.lab.api.count("replace")
        for one in range(0, len(burst), 8):
            ward.casebook.note(GPU, burst[: one + 8])
        await ward.lab.clock.advance(LOOK_S)
        assert len((await ward.taints())[NAME]) == len(Cause)
        assert ward.lab.api.count("replace") <= writes + 2


async def test_an_instances_trouble_leaves_the_others_alone(ward: Ward) -> None:
    """What shares its place is tainted: larger partitions, the whole GPU; not the partition beside it."""
    async with ward.lab.running():
        await ward.look(replace(XID, instance=Placement(1, 1)))
        tainted = await ward.taints()
        assert tainted.keys() == {LOWER, f"{NAME}-mig-7g-80gb-0", NAME}
        monitor = (await ward.lab.devices())[f"{NAME}-monitor"]
        assert [one["key"] for one in monitor["taints"]] == ["gpu.dra-driver.dev/monitor"]


async def test_times_of_taints_stay(ward: Ward) -> None:
    """Over other taints, over a kubelet that wiped the slices, over a restart of the plugin."""
    async with ward.lab.running():
        await ward.look(XID)
        assert LONG_AGO not in await ward.times()
        await ward.backdate()
        await ward.look(XID, HOT)
        assert await ward.times() == {LONG_AGO}
        await ward.lab.wipe()
        await ward.look(XID, HOT)
        assert await ward.times() == {LONG_AGO}
        await ward.look(XID, for_s=CLEAR_S + 2 * LOOK_S)
    ward.restart()
    ward.casebook.note(GPU, [XID])
    async with ward.lab.running():
        await ward.look(XID, HOT)
        assert await ward.times() == {LONG_AGO}


async def test_a_sick_gpu_that_stops_answering_is_both(ward: Ward) -> None:
    """Nothing is known anew of its health meanwhile; when it answers again and is well, all is over."""
    lost = Fault(pci_address=GPU, message="no answer")
    sound = ward.lab.inventory
    async with ward.lab.running():
        await ward.look(XID)
        ward.lab.observe(replace(sound, gpus=sound.gpus[1:], faults=(lost,)))
        ward.casebook.note(GPU, None)
        await ward.lab.clock.advance(LOOK_S)
        assert (await ward.taints())[NAME] == [("unhealthy", "", "NoSchedule")]
        ward.lab.observe(sound)
        await ward.look(for_s=LOOK_S)
        assert (await ward.taints())[NAME] == [("driver-error", "119", "NoSchedule")]
        await ward.look(for_s=CLEAR_S + LOOK_S)
        assert await ward.taints() == {}


async def test_a_gpu_that_is_gone_takes_its_trouble_with_it(ward: Ward) -> None:
    """Another one in its place is not blamed."""
    sound = ward.lab.inventory
    async with ward.lab.running():
        await ward.look(XID)
        ward.casebook.forget(GPU)
        ward.lab.observe(replace(sound, gpus=sound.gpus[1:]))
        await ward.lab.clock.advance(LOOK_S)
        ward.lab.observe(sound)
        await ward.look()
        assert await ward.taints() == {}


async def test_trouble_of_a_device_that_is_leaving_ends_with_the_trouble(ward: Ward) -> None:
    """While a claim keeps it, it bears both taints; then the one of the withdrawal alone."""
    sound = ward.lab.inventory
    (first, second) = sound.gpus
    assert first.partitioning is not None
    fewer = replace(first.partitioning, profiles=first.partitioning.profiles[-1:])
    async with ward.lab.running():
        await ward.lab.claim(LOWER)
        await ward.look(XID)
        ward.lab.observe(replace(sound, gpus=(replace(first, partitioning=fewer), second)))
        await ward.look(XID)
        assert (await ward.taints())[LOWER][0] == ("withdrawn", "", "NoSchedule")
        await ward.look(for_s=CLEAR_S + 2 * LOOK_S)
        assert (await ward.taints())[LOWER] == [("withdrawn", "", "NoSchedule")]


async def test_where_taints_are_not_kept_a_broken_gpu_is_not_offered(inventory: Inventory) -> None:
    """What a claim has stays; the other GPU is offered as before, and the broken one again when it is well."""
    gates = Gates(partitionable_devices=False, device_taints=False)
    ward = Ward(await new_lab(inventory, gates=gates))
    async with ward.lab.running():
        await ward.lab.claim(NAME)
        await ward.look(HOT, XID, for_s=20 * LOOK_S)
        assert sorted(await ward.lab.devices()) == [NAME, OTHER]
        await ward.lab.release()
        await ward.look(XID, for_s=20 * LOOK_S)
        assert sorted(await ward.lab.devices()) == [OTHER]
        await ward.look(for_s=CLEAR_S + 2 * LOOK_S)
        assert sorted(await ward.lab.devices()) == [NAME, OTHER]
