"""From what simulated GPUs tell of themselves to what the kubelet is told, without the process; time passes as a test says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dra_driver.config.machine import Machine
from dra_driver.model.health import Cause
from dra_driver.rules.health import CLEAR_S, ESCALATE_S
from kubelet_plugin.health import HealthReport
from kubelet_plugin.health_service import DeviceHealth, Health, HealthBoard
from kubelet_plugin.levels import levels
from tests.kubelet_plugin.conftest import POOL, CountingApi, NewClaim, NodePlugin
from tests.vendors.faults import set_faults

FIRST, SECOND = "0000:1b:00.0", "0000:43:00.0"
WHOLE, OTHER = "gpu-0000-1b-00-0", "gpu-0000-43-00-0"
LOW, HIGH = f"{WHOLE}-mig-1g-10gb-0", f"{WHOLE}-mig-1g-10gb-6"
REBOOT = {"fields": {"RECOVERY_ACTION": 2}}
OLD_DRIVER: dict[str, Any] = {"fields": {"RECOVERY_ACTION": None}}


class Patient:
    """A plugin whose first GPU a test breaks."""

    def __init__(self, plugin: NodePlugin) -> None:
        self.plugin = plugin
        self.board = HealthBoard()
        self._report: HealthReport | None = None

    def breaks(self, **fault: Any) -> None:
        """This and nothing else is wrong from now on."""
        set_faults(self.plugin.folder / "hardware", {FIRST: fault})

    async def pinged(self, *, after_s: float = 6.0) -> dict[str, DeviceHealth]:
        """What is told of all devices after the next ping."""
        self.plugin.clock.now += after_s
        await self.plugin.node.survey.ping()
        return self.told()

    def told(self) -> dict[str, DeviceHealth]:
        """What is told of all devices now."""
        if self._report is None:
            self._report = HealthReport(self.plugin.state, self.board)
        self._report.refresh()
        return {name: health for (_, name), health in self.board.current.items()}


def sick(told: dict[str, DeviceHealth]) -> set[str]:
    """The devices that are not healthy."""
    assert all(one.health is not Health.UNKNOWN for one in told.values())
    return {name for name, one in told.items() if one.health is Health.UNHEALTHY}


@pytest.fixture
async def patient(tmp_path: Path, machine: Machine, api: CountingApi) -> Patient:
    return Patient(await NodePlugin(tmp_path, machine, api).start())


async def test_all_devices_of_a_broken_gpu_are_unhealthy_until_it_was_well_for_a_while(
    patient: Patient,
) -> None:
    """The message says what the driver wants; the other GPU's are healthy all the time."""
    assert sick(patient.told()) == set()
    patient.breaks(**REBOOT)
    told = await patient.pinged()
    assert sick(told) == {name for name in told if name.startswith(WHOLE)}
    assert told[WHOLE].message == f"GPU {FIRST}: the driver recommends NODE_REBOOT: reboot the node"
    patient.breaks()
    assert sick(await patient.pinged()) == sick(told)
    assert sick(await patient.pinged(after_s=CLEAR_S)) == set()
    assert patient.told()[WHOLE].message == ""


async def test_a_gpu_that_is_broken_from_the_start_is_never_said_to_be_well(
    tmp_path: Path, machine: Machine, api: CountingApi
) -> None:
    """The first look already asks."""
    patient = Patient(NodePlugin(tmp_path, machine, api))
    patient.breaks(**REBOOT)
    await patient.plugin.start()
    assert WHOLE in sick(patient.told())


async def test_a_degraded_gpu_says_so_and_is_unhealthy_when_that_lasts(patient: Patient) -> None:
    """As long as it is still given out, it is healthy, with words."""
    patient.breaks(fields={"REMAPPED_PENDING": 1})
    told = await patient.pinged()
    assert sick(told) == set()
    assert "reset the GPU when it is idle" in told[WHOLE].message
    assert WHOLE in sick(await patient.pinged(after_s=ESCALATE_S))


async def test_an_instances_error_follows_its_place_while_partitions_come_and_go(
    patient: Patient, new_claim: NewClaim
) -> None:
    """The claim beside it is well; after its instance was destroyed the place stays what it is."""
    patient.breaks(**OLD_DRIVER)
    await patient.pinged()
    low, high = new_claim(LOW), new_claim(HIGH)
    await patient.plugin.prepare(low)
    await patient.plugin.prepare(high)
    await patient.pinged()  # the switch into MIG mode took the event set
    (number,) = [
        int(one.identity.partition("/")[0].removeprefix("gi-"))
        for one in patient.plugin.inventory().gpus[0].instances
        if one.placement.start == 0
    ]
    patient.breaks(**OLD_DRIVER, xids=[{"xid": 95, "instance": number}])
    told = await patient.pinged()
    assert {LOW, WHOLE} < sick(told)
    assert HIGH not in sick(told)
    assert "partition at position 0: XID 95" in told[LOW].message
    await patient.plugin.unprepare(low)
    assert sick(await patient.pinged(after_s=3600)) == sick(told)
    await patient.plugin.unprepare(high)
    assert sick(await patient.pinged()) == sick(told)


async def test_a_gpu_that_does_not_tell_is_what_it_was(patient: Patient) -> None:
    """It is no fault, as it answers; neither is it well again."""
    patient.breaks(**REBOOT)
    assert WHOLE in sick(await patient.pinged())
    patient.breaks(error="UNKNOWN", calls=["field_values"])
    assert WHOLE in sick(await patient.pinged(after_s=3600))
    assert patient.plugin.state.inventories[POOL].faults == ()
    patient.breaks()
    await patient.pinged()
    assert sick(await patient.pinged(after_s=CLEAR_S)) == set()


async def test_a_gpu_that_was_unplugged_comes_back_well(patient: Patient) -> None:
    """Whatever it had stood for is over with it."""
    patient.breaks(**REBOOT)
    assert WHOLE in sick(await patient.pinged())
    patient.breaks(absent=True)
    assert {name for name in await patient.pinged() if name.startswith(WHOLE)} == set()
    patient.breaks()
    assert sick(await patient.pinged()) == set()


async def test_metrics_tell_causes_by_gpu(patient: Patient) -> None:
    """Each GPU has each cause from the start, so that an alert can compare."""
    patient.breaks(**REBOOT | {"hot": True})
    for _ in range(5):
        await patient.pinged()
    found = levels(patient.plugin.state, patient.board, {}, damaged=0).gpu_conditions
    assert len(found) == 2 * len(Cause)
    assert {key: value for key, value in found.items() if value} == {
        (WHOLE, Cause.RECOVERY_DUE): 2,
        (WHOLE, Cause.THERMAL): 1,
    }


async def test_metrics_say_nothing_of_a_gpu_that_does_not_answer(patient: Patient) -> None:
    """0 would say that it is well."""
    await patient.pinged()
    patient.breaks(error="GPU_IS_LOST")
    await patient.pinged()
    found = levels(patient.plugin.state, patient.board, {}, damaged=0).gpu_conditions
    assert {gpu for gpu, _ in found} == {OTHER}


async def test_metrics_say_nothing_of_a_gpu_that_stopped_telling(patient: Patient) -> None:
    """What it suffered from stays; that it was well does not."""
    await patient.pinged()
    patient.breaks(error="UNKNOWN", calls=["field_values"])
    await patient.pinged()
    found = levels(patient.plugin.state, patient.board, {}, damaged=0).gpu_conditions
    assert {gpu for gpu, _ in found} == {OTHER}
    patient.breaks()
    await patient.pinged()
    found = levels(patient.plugin.state, patient.board, {}, damaged=0).gpu_conditions
    assert {gpu for gpu, _ in found} == {WHOLE, OTHER}


async def test_metrics_say_nothing_of_gpus_that_tell_nothing(
    tmp_path: Path, machine: Machine, api: CountingApi
) -> None:
    """A driver whose health is not read yet has no well GPUs, and no sick ones."""
    plugin = NodePlugin(tmp_path, machine, api)
    backend: Any = plugin.backend
    backend.health = lambda _: None
    patient = Patient(await plugin.start())
    await patient.pinged()
    assert levels(patient.plugin.state, patient.board, {}, damaged=0).gpu_conditions == {}
