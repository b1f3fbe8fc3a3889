"""How GPUs are, from the library to the vendor-neutral ailments; through pynvml's own structures, and without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dra_driver.model.device import Placement, SetMode, Target
from dra_driver.model.errors import VendorError
from dra_driver.model.health import Ailment, Cause, Severity
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.health_watch import LOOKS_PER_STATE
from dra_driver.vendors.nvidia.nvml import Code, NvmlError
from dra_driver.vendors.nvidia.nvml_health import XidEvent
from dra_driver.vendors.nvidia.sdk import PynvmlNvml
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.vendors.nvidia.xids import APPLICATION_XIDS, XIDS
from tests.vendors.faults import set_faults
from tests.vendors.nvidia.conftest import Library

GPU, OTHER = "0000:1b:00.0", "0000:43:00.0"
OLD_DRIVER: dict[str, Any] = {"fields": {"RECOVERY_ACTION": None}}
"""Of a driver that recommends no action."""


class Bench:
    """A backend whose first GPU a test breaks."""

    def __init__(
        self, folder: Path, nvml: SimulatedNvml, library: SimulatedNvml | PynvmlNvml
    ) -> None:
        self._folder = folder / "gpus"
        self.simulated = nvml
        self.backend = NvidiaBackend(library)

    def breaks(self, gpu: str = GPU, **fault: Any) -> None:
        """This and nothing else is wrong from now on."""
        set_faults(self._folder, {gpu: fault})

    def found(self, gpu: str = GPU) -> list[tuple[Cause, Severity, str]]:
        """What one look finds."""
        return [(one.cause, one.severity, one.detail) for one in self.backend.health(gpu)]

    def found_in_time(self) -> list[tuple[Cause, Severity, str]]:
        """As `found`, at the latest look that everything is asked at."""
        for _ in range(LOOKS_PER_STATE - 1):
            self.backend.health(GPU)
        return self.found()


@pytest.fixture(params=["simulated", "pynvml"])
def bench(
    request: pytest.FixtureRequest,
    simulate: Callable[..., SimulatedNvml],
    through_pynvml: Callable[[SimulatedNvml], PynvmlNvml],
    tmp_path: Path,
) -> Bench:
    nvml = simulate(count=2, instances=[{"profile": "1g.10gb", "start": 3}])
    library = nvml if request.param == "simulated" else through_pynvml(nvml)
    return Bench(tmp_path, nvml, library)


def test_a_gpu_that_is_well_has_no_ailment(bench: Bench) -> None:
    """At the first look, and when everything was asked."""
    assert bench.found() == bench.found_in_time() == []


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (
            {"fields": {"RECOVERY_ACTION": 1}},
            (Cause.RECOVERY_DUE, Severity.BROKEN, "gpu-reset"),
        ),
        (
            {"fields": {"RECOVERY_ACTION": 3}},
            (Cause.RECOVERY_DUE, Severity.DEGRADED, "drain-p2p"),
        ),
        (
            {"fields": {"RECOVERY_ACTION": 99}},
            (Cause.RECOVERY_DUE, Severity.BROKEN, "action-99"),
        ),
        ({"fields": {"REMAPPED_PENDING": 1}}, (Cause.MEMORY_REPAIR, Severity.DEGRADED, "")),
        ({"fields": {"REMAPPED_FAILURE": 1}}, (Cause.MEMORY_REPAIR, Severity.BROKEN, "")),
        ({"fields": {"RETIRED_PENDING": 1}}, (Cause.MEMORY_REPAIR, Severity.DEGRADED, "")),
        ({"hot": True}, (Cause.THERMAL, Severity.DEGRADED, "")),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_a_gpu_tells_is_found_while_it_tells_it(
    bench: Bench, fault: dict[str, Any], expected: tuple[Cause, Severity, str]
) -> None:
    """A state is an ailment as long as it lasts, of that GPU alone."""
    bench.breaks(**fault)
    assert bench.found_in_time() == [expected]
    assert bench.found(OTHER) == []
    bench.breaks()
    assert bench.found_in_time() == []


def test_links_count_as_lost_where_they_were_up(
    simulate: Callable[..., SimulatedNvml], tmp_path: Path
) -> None:
    """A GPU that never had them is not blamed, nor is one in MIG mode, where they have no use."""
    bench = Bench(tmp_path, nvml := simulate(), nvml)
    bench.breaks(links_down=4)
    assert bench.found() == []
    bench.breaks()
    assert bench.found_in_time() == []
    bench.breaks(links_down=4)
    assert bench.found_in_time() == [(Cause.INTERCONNECT, Severity.DEGRADED, "")]
    bench.breaks()
    bench.backend.partition(SetMode(gpu=GPU, mode="mig"))
    assert bench.found_in_time() == []
    bench.breaks(links_down=18)
    assert bench.found_in_time() == []


@pytest.mark.parametrize("model", ["A100-SXM4-40GB", "H100-SXM5-80GB"])
def test_links_are_watched_before_hopper_too(
    simulate: Callable[..., SimulatedNvml],
    through_pynvml: Callable[[SimulatedNvml], PynvmlNvml],
    tmp_path: Path,
    model: str,
) -> None:
    """There NVML tells their states one by one, and refuses the field for all."""
    library = through_pynvml(nvml := simulate(model=model))
    bench = Bench(tmp_path, nvml, library)
    assert bench.found() == []
    bench.breaks(links_down=4)
    (ailment,) = [one for _ in range(LOOKS_PER_STATE) for one in bench.backend.health(GPU)]
    assert ailment.message.startswith("4 NVLinks")


def test_errors_that_ecc_cannot_correct_count_when_they_happen(bench: Bench) -> None:
    """Those of before the first look are history; the message has the counts."""
    bench.breaks(fields={"ECC_UNCORRECTED_VOLATILE": 1, "ECC_UNCORRECTED_AGGREGATE": 5})
    assert bench.found() == []
    bench.breaks(fields={"ECC_UNCORRECTED_VOLATILE": 3, "ECC_UNCORRECTED_AGGREGATE": 7})
    (ailment,) = bench.backend.health(GPU)
    assert (ailment.cause, ailment.severity) == (Cause.MEMORY_ERROR, Severity.DEGRADED)
    assert ailment.message.startswith("3 memory errors")
    assert ailment.message.endswith("7 in its life")
    assert bench.found() == []


def test_an_xid_that_breaks_the_gpu_stands_until_the_gpu_was_away(bench: Bench) -> None:
    """Where the driver recommends nothing only a reset ends it; an XID that passes, passes with the next look."""
    bench.breaks(**OLD_DRIVER)
    assert bench.found() == []
    bench.breaks(**OLD_DRIVER, xids=[{"xid": 94}, {"xid": 119}])
    stands = (Cause.DRIVER_ERROR, Severity.BROKEN, "119")
    assert bench.found() == [stands, (Cause.DRIVER_ERROR, Severity.DEGRADED, "94")]
    assert bench.found() == [stands]
    bench.breaks(error="GPU_IS_LOST", calls=["gpu_by_address"])
    assert bench.found() == [(Cause.RECOVERY_DUE, Severity.BROKEN, "gpu-is-lost")]
    bench.breaks(**OLD_DRIVER)
    assert bench.found() == []


def test_a_gpu_that_was_unplugged_has_no_past(
    simulate: Callable[..., SimulatedNvml], tmp_path: Path
) -> None:
    """It may be another one; whoever lists the GPUs notices."""
    bench = Bench(tmp_path, nvml := simulate(count=2), nvml)
    bench.breaks(**OLD_DRIVER)
    bench.found()
    bench.breaks(**OLD_DRIVER, xids=[{"xid": 119}])
    assert bench.found()
    bench.breaks(absent=True)
    assert bench.backend.addresses() == (OTHER,)
    bench.breaks(**OLD_DRIVER)
    assert bench.found() == []


def test_the_drivers_recommendation_decides_over_xids(bench: Bench) -> None:
    """Recommending nothing, it says that all is well whatever happened; recommending something, the XID is named beside it."""
    assert bench.found() == []
    bench.breaks(xids=[{"xid": 119}])
    assert bench.found() == []
    bench.breaks(xids=[{"xid": 119}, {"xid": 79}], fields={"RECOVERY_ACTION": 2})
    (ailment,) = bench.backend.health(GPU)
    assert ailment.detail == "node-reboot"
    assert "XID 79: the GPU has fallen off the bus" in ailment.message
    bench.breaks()
    assert bench.found() == []


@pytest.mark.parametrize("xid", sorted(APPLICATION_XIDS))
def test_a_programs_own_error_is_no_ailment(bench: Bench, xid: int) -> None:
    """Whoever crashes takes no GPU from others."""
    bench.breaks(**OLD_DRIVER)
    bench.found()
    bench.breaks(**OLD_DRIVER, xids=[{"xid": xid}])
    assert bench.found() == []
    assert xid not in XIDS


def test_an_unknown_xid_is_told_and_passes(bench: Bench) -> None:
    """Newer drivers have newer numbers; not all of them are worth a GPU."""
    bench.breaks(**OLD_DRIVER)
    bench.found()
    bench.breaks(**OLD_DRIVER, xids=[{"xid": 999}])
    assert bench.found() == [(Cause.DRIVER_ERROR, Severity.DEGRADED, "999")]
    assert bench.found() == []


def test_an_xid_of_an_instance_is_where_the_instance_is(bench: Bench) -> None:
    """By its placement, as ids are used again; one of an instance that is gone counts for the whole GPU."""
    bench.breaks(**OLD_DRIVER)
    bench.found()
    bench.breaks(**OLD_DRIVER, xids=[{"xid": 95, "instance": 1}, {"xid": 95, "instance": 6}])
    places = [one.instance for one in bench.backend.health(GPU)]
    assert places == [Placement(3, 1), None]


def test_a_burst_of_xids_keeps_no_thread(bench: Bench) -> None:
    """What is left over comes with the next look; equal ones are one ailment."""
    bench.breaks(**OLD_DRIVER)
    bench.found()
    bench.breaks(**OLD_DRIVER, xids=[{"xid": 92}] * 64 + [{"xid": 119}])
    assert bench.found() == [(Cause.DRIVER_ERROR, Severity.DEGRADED, "92")]
    assert bench.found() == [(Cause.DRIVER_ERROR, Severity.BROKEN, "119")]


def test_a_failure_hides_no_xid_that_was_taken_before(
    simulate: Callable[..., SimulatedNvml], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each is told only once; the failure is raised by the next look."""
    bench = Bench(tmp_path, nvml := simulate(), nvml)
    bench.breaks(**OLD_DRIVER)
    bench.found()
    bench.breaks(**OLD_DRIVER, xids=[{"xid": 119}, {"xid": 79}])
    answers = iter([XidEvent(xid=119)])

    def fail(*_: object) -> XidEvent:
        for answer in answers:
            return answer
        raise NvmlError(Code.UNKNOWN, "the event set")

    monkeypatch.setattr(nvml.health, "next_event", fail)
    stands = (Cause.DRIVER_ERROR, Severity.BROKEN, "119")
    assert bench.found() == [stands]
    with pytest.raises(NvmlError, match="UNKNOWN"):
        bench.found()
    monkeypatch.undo()
    assert stands in bench.found()


def test_an_event_set_that_fails_is_replaced(bench: Bench) -> None:
    """Whatever was wrong with it, the next look's tells of what comes then."""
    bench.breaks(**OLD_DRIVER)
    bench.found()
    former = bench.backend._health._watched[GPU].events
    bench.breaks(**OLD_DRIVER, error="UNKNOWN", calls=["next_event"])
    with pytest.raises(NvmlError, match="UNKNOWN"):
        bench.found()
    bench.breaks(**OLD_DRIVER)
    assert bench.found() == []
    assert bench.backend._health._watched[GPU].events is not former
    bench.breaks(**OLD_DRIVER, xids=[{"xid": 119}])
    assert bench.found() == [(Cause.DRIVER_ERROR, Severity.BROKEN, "119")]


@pytest.mark.parametrize("call", ["field_values", "active_links", "clock_reasons", "open_events"])
def test_what_is_not_offered_is_no_news(
    simulate: Callable[..., SimulatedNvml], tmp_path: Path, call: str
) -> None:
    """Each part degrades alone: the others are told."""
    bench = Bench(tmp_path, nvml := simulate(), nvml)
    fault: dict[str, Any] = {"fields": {"REMAPPED_PENDING": 1}, "hot": True}
    bench.breaks(**fault, error="NOT_SUPPORTED", calls=[call])
    lost = {"field_values": Cause.MEMORY_REPAIR, "clock_reasons": Cause.THERMAL}.get(call)
    expected = {Cause.MEMORY_REPAIR, Cause.THERMAL} - {lost}
    assert {cause for cause, _, _ in bench.found()} == expected


def test_a_gpu_that_does_not_tell_says_so(bench: Bench) -> None:
    """An error that is none of `not offered` is raised, with the GPU's name: no news is not good news."""
    bench.breaks(error="UNKNOWN", calls=["field_values"])
    with pytest.raises(VendorError, match=f"GPU {GPU}: asking for its health: NVML says UNKNOWN"):
        bench.backend.health(GPU)


@pytest.mark.parametrize(
    ("error", "detail"), [("GPU_IS_LOST", "gpu-is-lost"), ("RESET_REQUIRED", "gpu-reset")]
)
def test_a_gpu_that_only_its_health_says_is_lost_is_broken(
    bench: Bench, error: str, detail: str
) -> None:
    """NVML has UUIDs in its memory, so a GPU that fell off the bus may still tell its own."""
    assert bench.found() == []
    bench.breaks(error=error, calls=["field_values"])
    assert bench.found() == [(Cause.RECOVERY_DUE, Severity.BROKEN, detail)]
    assert bench.backend.identify(Target(gpu=GPU))
    bench.breaks()
    assert bench.found() == []


def test_each_field_may_say_that_the_gpu_is_lost(
    simulate: Callable[..., SimulatedNvml],
    through_pynvml: Callable[[SimulatedNvml], PynvmlNvml],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The call succeeds then: that no field is offered would be the wrong conclusion."""
    library = through_pynvml(nvml := simulate())
    bench = Bench(tmp_path, nvml, library)

    def lose(_: object, __: object, count: Any, values: Any) -> None:
        for field in values._obj[: count.value]:
            field.nvmlReturn = Code.GPU_IS_LOST

    monkeypatch.setattr(Library, "c_nvmlDeviceGetFieldValues", lose)
    assert bench.found() == [(Cause.RECOVERY_DUE, Severity.BROKEN, "gpu-is-lost")]


@pytest.mark.parametrize("code", [Code.UNKNOWN, Code.TIMEOUT])
def test_fields_that_fail_are_not_taken_for_fields_that_are_not_offered(
    simulate: Callable[..., SimulatedNvml],
    through_pynvml: Callable[[SimulatedNvml], PynvmlNvml],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    code: Code,
) -> None:
    """No data is not health: a GPU that says nothing for a moment is not well, and what was wrong with it is not over."""
    bench = Bench(tmp_path, nvml := simulate(), through_pynvml(nvml))

    def fail(_: object, __: object, count: Any, values: Any) -> None:
        for field in values._obj[: count.value]:
            field.nvmlReturn = code

    monkeypatch.setattr(Library, "c_nvmlDeviceGetFieldValues", fail)
    with pytest.raises(NvmlError, match=code.name):
        bench.found()


@pytest.mark.parametrize("call", ["active_links", "open_events"])
def test_a_failure_hides_no_memory_error_that_was_counted_before(bench: Bench, call: str) -> None:
    """Counters only grow: what a look that failed has read is new to the next one."""
    bench.found_in_time()
    counted: dict[str, Any] = {"fields": {"ECC_UNCORRECTED_VOLATILE": 1}}
    bench.backend._health.let_go(GPU)  # so that events are asked for anew
    bench.breaks(**counted, error="UNKNOWN", calls=[call])
    with pytest.raises(NvmlError, match="UNKNOWN"):
        bench.found()
    bench.breaks(**counted)
    assert bench.found() == [(Cause.MEMORY_ERROR, Severity.DEGRADED, "")]


def test_a_mode_is_switched_without_our_own_event_set(
    simulate: Callable[..., SimulatedNvml], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It would keep the GPU in use; the next look opens another, and nothing that stands is forgotten."""
    bench = Bench(tmp_path, nvml := simulate(), nvml)
    order: list[str] = []

    def noting(owner: object, name: str) -> None:
        method = getattr(owner, name)

        def noted(*arguments: object) -> object:
            order.append(name)
            return method(*arguments)

        monkeypatch.setattr(owner, name, noted)

    for owner, name in (
        (nvml.health, "open_events"),
        (nvml.health, "close_events"),
        (nvml, "set_mig_mode"),
    ):
        noting(owner, name)
    bench.breaks(**OLD_DRIVER)
    bench.found()
    bench.breaks(**OLD_DRIVER, xids=[{"xid": 119}])
    stands = bench.found()
    bench.backend.partition(SetMode(gpu=GPU, mode="mig"))
    assert bench.found() == stands != []
    assert order == ["open_events", "close_events", "set_mig_mode", "open_events"]


def test_a_reloaded_driver_gets_new_event_sets(
    simulate: Callable[..., SimulatedNvml],
    through_pynvml: Callable[[SimulatedNvml], PynvmlNvml],
    tmp_path: Path,
) -> None:
    """Handles of the former initialisation are void; a GPU's look that notices opens a new set, and voids no other's."""
    library = through_pynvml(nvml := simulate(count=2))
    bench = Bench(tmp_path, nvml, library)
    bench.breaks(**OLD_DRIVER)
    for gpu in (GPU, OTHER):
        bench.found(gpu)
    assert library._session.end()
    for gpu in (GPU, OTHER):
        assert bench.found(gpu) == []
    bench.breaks(**OLD_DRIVER, xids=[{"xid": 119}])
    assert bench.found() == [(Cause.DRIVER_ERROR, Severity.BROKEN, "119")]


def test_every_xid_has_words(bench: Bench) -> None:
    """The message says what happened and what to do, in one line."""
    bench.breaks(**OLD_DRIVER)
    bench.found()
    bench.breaks(**OLD_DRIVER, xids=[{"xid": xid} for xid in sorted(XIDS)])
    told: tuple[Ailment, ...] = bench.backend.health(GPU)
    assert {one.detail for one in told} == {str(xid) for xid in XIDS}
    assert all(one.message.startswith(f"XID {one.detail}: ") for one in told)
    assert all("; " in one.message for one in told)
