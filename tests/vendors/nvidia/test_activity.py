"""What GPUs do: measured through the simulation, and through pynvml over it; no data is None and never 0."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pynvml
import pytest

from dra_driver.model.activity import Activity, GpuProcess
from dra_driver.model.device import CreateStage, DestroyStage, Placement, SetMode
from dra_driver.model.errors import VendorError
from dra_driver.vendors.nvidia.activity import ActivityMeter
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.discovery import COMPUTE_INSTANCE, GPU_INSTANCE
from dra_driver.vendors.nvidia.driver_root import DriverRoot
from dra_driver.vendors.nvidia.nvml import NvmlError
from dra_driver.vendors.nvidia.nvml_activity import GpmMetric, MeasuringNvml, RunningProcess
from dra_driver.vendors.nvidia.sdk import PynvmlNvml
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.vendors.nvidia.simulated_faults import ACTIVITY_CALLS
from tests.vendors.faults import set_faults
from tests.vendors.nvidia.conftest import bind
from tests.vendors.nvidia.measuring_library import MeasuringLibrary

Simulate = Callable[..., SimulatedNvml]

GPU, OTHER = "0000:1b:00.0", "0000:43:00.0"
GIB = 1 << 30
INSTANCES = [{"profile": "3g.40gb", "start": 4}, {"profile": "1g.10gb", "start": 0}]


@dataclass
class Bench:
    """One machine, its clock, and what its devices do."""

    nvml: SimulatedNvml
    folder: Path
    now: float = 6000.0

    def __post_init__(self) -> None:
        self.nvml.activity._clock = lambda: self.now

    def load(self, **by_device: dict[str, Any]) -> None:
        """What the devices do from now on; `gpu` is the first GPU, `mig_1` the first's MIG device in instance 1."""
        names = {"gpu": GPU, "other": OTHER}
        if any(name.startswith("mig") for name in by_device):
            uuids = self.nvml.mig_uuids(self.nvml.gpu_by_address(GPU))
            names |= {f"mig_{instance}": uuid for (instance, _), uuid in uuids.items()}
        loads = {names[name]: load for name, load in by_device.items()}
        (self.folder / "gpus/activity.json").write_text(json.dumps(loads))

    def meter(self, nvml: MeasuringNvml | None = None) -> ActivityMeter:
        return ActivityMeter(nvml or self.nvml, clock=lambda: self.now)

    def library(self, patch: pytest.MonkeyPatch) -> tuple[PynvmlNvml, MeasuringLibrary]:
        """The same machine through pynvml."""
        bind(self.folder, *self.nvml.pci_addresses())
        library = MeasuringLibrary(self.nvml)
        patch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        patch.setattr(pynvml, "nvmlLib", library)
        return PynvmlNvml(DriverRoot(host_root=self.folder)), library

    def measured(self, meter: ActivityMeter, *, after_s: float = 10.0) -> tuple[Activity, ...]:
        """The GPU's activity over that time."""
        meter.measure(GPU)
        self.now += after_s
        return meter.measure(GPU)


@pytest.fixture
def bench(simulate: Simulate, tmp_path: Path) -> Callable[..., Bench]:
    return lambda **spec: Bench(simulate(**spec), tmp_path)


def test_a_busy_gpu_is_measured(bench: Callable[..., Bench]) -> None:
    """Every figure, in its unit; averages are over the time between two measurements, whatever the curve did in it."""
    one = bench()
    one.load(
        gpu={
            "sm": [0.75, 0.25],
            "step_s": 5,
            "memory_mib": 20480,
            "processes": [{"pid": 7, "memory_mib": 512}, {"pid": 8, "memory_mib": 1024}],
        }
    )
    (found,) = one.measured(one.meter())
    assert found == Activity(
        uuid=one.nvml.uuid(one.nvml.gpu_by_address(GPU)),
        taken_at=6010.0,
        utilization=1.0,
        memory_utilization=0.45,
        engine_activity=0.5,
        sm_activity=0.5,
        sm_occupancy=0.25,
        tensor_activity=0.2,
        dram_activity=0.3,
        memory_used_bytes=20 * GIB,
        memory_total_bytes=found.memory_total_bytes,
        power_watts=542.5,
        temperature_celsius=64,
        throttled=frozenset(),
        processes=(
            GpuProcess(pid=7, memory_bytes=512 << 20, sm_ratio=0.38),
            GpuProcess(pid=8, memory_bytes=1 << 30, sm_ratio=0.38),
        ),
    )


def test_an_idle_gpu_says_nought(bench: Callable[..., Bench]) -> None:
    """0 where it was measured to be 0; no processes are none, and not unknown."""
    one = bench()
    (found,) = one.measured(one.meter())
    assert (found.utilization, found.sm_activity, found.memory_used_bytes) == (0, 0, 0)
    assert found.processes == ()


def test_the_first_measurement_has_no_averages(bench: Callable[..., Bench]) -> None:
    """There is nothing yet to compare with, so nothing is said."""
    (found,) = bench().meter().measure(GPU)
    assert (found.sm_activity, found.dram_activity) == (None, None)
    assert found.utilization == 0


def test_a_gpu_before_hopper_has_no_averages(bench: Callable[..., Bench]) -> None:
    """The rest is measured."""
    one = bench(model="A100-SXM4-40GB")
    (found,) = one.measured(one.meter())
    assert (found.engine_activity, found.sm_activity, found.sm_occupancy) == (None, None, None)
    assert found.memory_used_bytes == 0


@pytest.mark.parametrize("bound", [False, True], ids=["simulation", "pynvml"])
def test_mig_devices_are_measured_apart(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, bound: bool
) -> None:
    """Each has its own memory, processes and averages, of what it has; NVML says no utilization in MIG mode."""
    one = bench(instances=INSTANCES)
    one.load(mig_1={"sm": [1.0], "memory_mib": 1024, "processes": [{"pid": 42, "memory_mib": 700}]})
    meter = one.meter(one.library(monkeypatch)[0] if bound else None)
    whole, *parts = one.measured(meter)
    assert (whole.utilization, whole.memory_utilization) == (None, None)
    busy, idle = sorted(parts, key=lambda part: -(part.sm_activity or 0))
    uuids = one.nvml.mig_uuids(one.nvml.gpu_by_address(GPU))
    assert {busy.uuid, idle.uuid} == set(uuids.values())
    assert (busy.sm_activity, busy.memory_used_bytes) == (1.0, GIB)
    assert busy.processes == (GpuProcess(pid=42, memory_bytes=700 << 20),)
    assert (idle.sm_activity, idle.memory_used_bytes, idle.processes) == (0, 0, ())
    totals = sorted(part.memory_total_bytes or 0 for part in parts)
    assert 0 < totals[0] < totals[1] < (whole.memory_total_bytes or 0)
    assert (busy.power_watts, busy.temperature_celsius, busy.throttled) == (None, None, None)


def test_an_instance_that_is_split_has_no_averages(bench: Callable[..., Bench]) -> None:
    """NVML samples GPU instances: the work of two compute instances in one cannot be told apart."""
    one = bench(mode="mig")
    gpu = one.nvml.gpu_by_address(GPU)
    instance = one.nvml.create_gpu_instance(gpu, 9, Placement(4, 4))
    for _ in range(2):
        one.nvml.create_compute_instance(instance, 0)
    _, *parts = one.measured(one.meter())
    assert [part.sm_activity for part in parts] == [None, None]
    assert [part.memory_used_bytes for part in parts] == [0, 0]


def test_pynvml_measures_the_same(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every figure passes the binding unchanged; a process that computes and draws is one."""
    one = bench()
    one.load(
        gpu={
            "sm": [0.5],
            "memory_mib": 100,
            "processes": [{"pid": 7, "memory_mib": 1}, {"pid": 8, "memory_mib": 2}],
        }
    )
    plain, bound = one.meter(), one.meter(one.library(monkeypatch)[0])
    bound.measure(GPU)
    (expected,) = one.measured(plain)
    assert bound.measure(GPU) == (expected,)
    assert None not in {getattr(expected, field.name) for field in fields(expected)}


def test_heat_is_one_truth(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """What taints the GPU is what its figures say of it."""
    one = bench()
    set_faults(tmp_path / "gpus", {GPU: {"hot": True}})
    (found,) = one.meter().measure(GPU)
    assert found.throttled == frozenset({"thermal"})
    assert [str(ailment.cause) for ailment in NvidiaBackend(one.nvml).health(GPU)] == ["thermal"]


def test_ratios_are_ratios(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters that are read a little apart may say more than all."""
    one = bench()
    above = {GpmMetric.SM_UTIL: 100.4, GpmMetric.SM_OCCUPANCY: -0.1}
    monkeypatch.setattr(one.nvml.activity, "gpm_percentages", lambda *_: above)
    (found,) = one.measured(one.meter())
    assert (found.sm_activity, found.sm_occupancy, found.dram_activity) == (1, 0, None)


def test_every_kind_of_process_is_listed_where_the_gpu_lists_it(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MPS names its clients apart from its server; a GPU that cannot draw, or is cut, may refuse that list alone."""
    one = bench()
    one.load(gpu={"processes": [{"pid": 7, "memory_mib": 1}]})
    nvml, library = one.library(monkeypatch)
    library.draws = False
    library.mps_clients = (
        RunningProcess(pid=8, memory_bytes=2 << 20),
        RunningProcess(pid=7, memory_bytes=0),
    )
    (found,) = one.meter(nvml).measure(GPU)
    assert {(p.pid, p.memory_bytes) for p in found.processes or ()} == {(7, 1 << 20), (8, 2 << 20)}


@pytest.mark.parametrize("call", sorted(ACTIVITY_CALLS - {"mig_devices", "gpm_free"}))
def test_each_figure_fails_alone(bench: Callable[..., Bench], tmp_path: Path, call: str) -> None:
    """Whatever a driver refuses is absent: the others are what they are without the refusal, and absent is not 0."""
    one = bench()
    one.load(gpu={"sm": [0.5], "memory_mib": 100, "processes": [{"pid": 7, "memory_mib": 1}]})
    (full,) = one.measured(one.meter())
    set_faults(tmp_path / "gpus", {GPU: {"error": "NO_PERMISSION", "calls": [call]}})
    one.now -= 10
    (found,) = one.measured(one.meter())
    missing = {f.name for f in fields(full) if getattr(found, f.name) != getattr(full, f.name)}
    counted = {"engine_activity", "sm_activity", "sm_occupancy", "tensor_activity", "dram_activity"}
    expected = {
        "utilization": {"utilization", "memory_utilization"},
        "memory_use": {"memory_used_bytes", "memory_total_bytes"},
        "power_milliwatts": {"power_watts"},
        "temperature_celsius": {"temperature_celsius"},
        "clock_reasons": {"throttled"},
        "processes": {"processes"},
        "process_samples": {"processes"},
        "has_gpm": counted,
        "gpm_sample": counted,
        "gpm_percentages": counted,
    }
    assert missing == expected[call]
    if call == "process_samples":
        assert found.processes == (GpuProcess(pid=7, memory_bytes=1 << 20),)
    else:
        assert {getattr(found, name) for name in missing} == {None}


def test_mig_devices_that_cannot_be_listed_cost_only_themselves(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    """The GPU's own figures are there."""
    one = bench(instances=INSTANCES)
    fault = {"error": "UNKNOWN", "calls": ["mig_devices"]}
    set_faults(tmp_path / "gpus", {GPU: fault})
    (whole,) = one.measured(one.meter())
    assert whole.power_watts == 70


def test_a_lost_gpu_has_no_activity(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """An error that names it, instead of figures that are all absent."""
    backend = NvidiaBackend(bench(count=2).nvml)
    fault = {"error": "GPU_IS_LOST", "calls": ["processes"]}
    set_faults(tmp_path / "gpus", {GPU: fault})
    with pytest.raises(NvmlError, match=f"GPU {GPU}: measuring it: NVML says GPU_IS_LOST"):
        backend.activity(GPU)
    assert len(backend.activity(OTHER)) == 1


def test_samples_are_freed(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two measurements there is one for each device that exists, after an error too, and none in the end."""
    one = bench(count=2, instances=INSTANCES)
    nvml, library = one.library(monkeypatch)
    meter = one.meter(nvml)
    for _ in range(5):
        one.measured(meter)
        assert len(library.samples) == 3
    meter.measure(OTHER)
    set_faults(one.folder / "gpus", {GPU: {"error": "NOT_SUPPORTED", "calls": ["gpm_sample"]}})
    meter.measure(GPU)
    assert len(library.samples) == 3
    nvml.close()
    assert library.samples == {}


def test_a_change_of_mode_finds_no_sampler(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that we keep on the GPU is freed before; another GPU's stays."""
    one = bench(count=2, mode="mig")
    nvml, library = one.library(monkeypatch)
    backend = NvidiaBackend(nvml)
    for gpu in (GPU, OTHER):
        backend.activity(gpu)
    assert len(library.samples) == 2
    backend.partition(SetMode(gpu=GPU, mode="whole"))
    assert len(library.samples) == 1


def test_claims_that_come_and_go_take_no_averages_from_others(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance is made beside one that is measured, and destroyed with nothing of ours in it."""
    one = bench(instances=INSTANCES)
    nvml, library = one.library(monkeypatch)
    backend = NvidiaBackend(nvml)
    backend._meter._clock = lambda: one.now
    uuid = nvml.mig_uuids(nvml.gpu_by_address(GPU))[1, 0]

    def measured() -> dict[str, float | None]:
        one.now += 10
        return {activity.uuid: activity.sm_activity for activity in backend.activity(GPU)}

    measured()
    made: list[DestroyStage] = []
    for stage in (GPU_INSTANCE, COMPUTE_INSTANCE):
        change = CreateStage(
            gpu=GPU,
            profile="1g.10gb",
            placement=Placement(1, 1),
            stage=stage,
            parent=made[0].identity if made else None,
        )
        made.append(DestroyStage(created=change, identity=backend.partition(change)))
    assert measured()[uuid] == 0
    assert len(library.samples) == 4
    for undo in reversed(made):
        backend.partition(undo)
        assert len(library.samples) == 3
    assert measured()[uuid] == 0


def test_samples_of_a_reloaded_driver_are_not_used(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first measurement after the reload has no averages, and the next one has."""
    one = bench()
    nvml, _ = one.library(monkeypatch)
    meter = one.meter(nvml)
    meter.measure(GPU)
    nvml.close()
    (after,) = meter.measure(GPU)
    assert after.sm_activity is None
    one.now += 10
    (later,) = meter.measure(GPU)
    assert later.sm_activity == 0


def test_a_load_that_means_nothing_is_named(bench: Callable[..., Bench]) -> None:
    """The message says which file and device, the value and what would be possible."""
    one = bench()
    file = one.folder / "gpus/activity.json"
    for content, words in {
        '{"0000:1b:00.7": {}}': ["'0000:1b:00.7' is not one of 0000:1b:00.0"],
        '{"0000:1b:00.0": {"sm": [2]}}': [GPU, "sm", "2"],
        '{"0000:1b:00.0": {"memory": 1}}': ["memory: unknown", "did you mean memory_mib"],
        '{"0000:1b:00.0": {"processes": [{"pid": 0}]}}': ["processes", "pid", "0"],
    }.items():
        file.write_text(content)
        with pytest.raises(VendorError) as refused:
            one.meter().measure(GPU)
        assert refused.value.retryable
        for word in (str(file), *words):
            assert word in str(refused.value)
