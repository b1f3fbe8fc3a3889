"""What devices do, measured through NVML's calls: set, then read back, on every board; and only read on this machine's own GPUs."""

from __future__ import annotations

from dataclasses import fields
from functools import partial

import pytest

from dra_driver.model.activity import Activity, GpuProcess
from dra_driver.model.errors import VendorError
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.nvml import Architecture, Code, Handle, MigMode
from dra_driver.vendors.nvidia.nvml_activity import (
    GpmMetric,
    MemoryUse,
    MigDevice,
    RunningProcess,
    Utilization,
)
from dra_driver.vendors.nvidia.nvml_library import NvmlLibrary
from dra_driver.vendors.nvidia.profiles import BOARDS
from tests.vendors.nvidia.contract.boards import first, offered, on_all_boards, refusal, smallest
from tests.vendors.nvidia.contract.conftest import Benches, FakeBenches

_MIB = 1 << 20
_THREE = [{"pid": pid, "memory_mib": 256 * pid} for pid in (1, 2, 3)]
_BUSY = {"sm": [0.5], "memory_mib": 2048, "processes": _THREE}
_LOADED = {
    GpmMetric.GRAPHICS_UTIL: 50.0,
    GpmMetric.SM_UTIL: 50.0,
    GpmMetric.SM_OCCUPANCY: 25.0,
    GpmMetric.ANY_TENSOR_UTIL: 20.0,
    GpmMetric.DRAM_BW_UTIL: 30.0,
}
_WITHOUT_GPM = {"engine_activity", "sm_activity", "sm_occupancy", "tensor_activity"} | {
    "dram_activity"
}


def mig_device(nvml: NvmlLibrary, gpu: Handle, number: int) -> MigDevice:
    """A new one, of the smallest profile at its place of that number."""
    profile, places = smallest(nvml, gpu)
    made = nvml.create_gpu_instance(gpu, profile.id, places[number])
    nvml.create_compute_instance(made, nvml.compute_profile(made, 0).id)
    ours = nvml.gpu_instance_info(made).id
    return next(one for one in nvml.activity.mig_devices(gpu) if one.instance == ours)


def looked_at_twice(nvml: NvmlLibrary, address: str) -> Activity:
    """The GPU's activity, with the averages that a second look gives."""
    backend = NvidiaBackend(nvml)
    backend.activity(address)
    return backend.activity(address)[0]


def missing(found: Activity) -> set[str]:
    """Which figures are not there."""
    return {one.name for one in fields(found) if getattr(found, one.name) is None}


def test_a_gpu_tells_what_it_does(readable: NvmlLibrary) -> None:
    """What is not to be had it refuses as such; all that there is lies in the range of its kind."""
    calls = readable.activity
    for address in readable.pci_addresses():
        gpu = readable.gpu_by_address(address)
        with offered():
            rates = calls.utilization(gpu)
            assert 0 <= rates.gpu <= 100 >= rates.memory >= 0
        with offered():
            memory = calls.memory_use(gpu)
            assert 0 <= memory.used <= memory.total == readable.memory_bytes(gpu)
        with offered():
            assert 0 < calls.power_milliwatts(gpu) < 3_000_000
        with offered():
            assert 0 < calls.temperature_celsius(gpu) < 120
        with offered():
            running = calls.processes(gpu)
            assert len({(one.pid, one.instance, one.compute) for one in running}) == len(running)
        with offered():
            assert all(0 <= one.sm <= 100 for one in calls.process_samples(gpu, 0))
        assert calls.has_gpm(gpu) == (readable.architecture(gpu) >= Architecture.HOPPER)


def test_the_backend_measures_it(readable: NvmlLibrary) -> None:
    """Twice, as averages need two looks: each device that there is, every ratio between 0 and 1."""
    backend = NvidiaBackend(readable)
    for address in readable.pci_addresses():
        for _ in range(2):
            whole, *parts = backend.activity(address)
            assert whole.uuid == readable.uuid(readable.gpu_by_address(address))
            for one in (whole, *parts):
                ratios = (one.utilization, one.memory_utilization, one.sm_activity)
                assert all(ratio is None or 0 <= ratio <= 1 for ratio in ratios)
    backend.close()


@on_all_boards
def test_a_whole_gpus_figures_are_read_back(bench: Benches, model: str) -> None:
    """Idle and at work; each process once, though it computes and draws."""
    one = bench(model=model)
    gpu, calls = first(one.nvml), one.nvml.activity
    total = BOARDS[model].memory_mib * _MIB
    assert not any((calls.mig_devices(gpu), calls.processes(gpu), calls.process_samples(gpu, 0)))
    assert calls.utilization(gpu) == Utilization(gpu=0, memory=0)
    assert calls.memory_use(gpu) == MemoryUse(total=total, used=0)
    assert (calls.power_milliwatts(gpu), calls.temperature_celsius(gpu)) == (70_000, 30)
    one.works(one.nvml.uuid(gpu), **_BUSY)
    assert calls.utilization(gpu) == Utilization(gpu=100, memory=30)
    assert calls.memory_use(gpu) == MemoryUse(total=total, used=2048 * _MIB)
    assert (calls.power_milliwatts(gpu), calls.temperature_celsius(gpu)) == (385_000, 52)
    expected = [RunningProcess(pid=pid, memory_bytes=256 * pid * _MIB) for pid in (1, 2, 3)]
    assert sorted(calls.processes(gpu), key=lambda process: process.pid) == expected
    samples = calls.process_samples(gpu, 0)
    assert [(sample.pid, sample.sm) for sample in samples] == [(1, 17), (2, 17), (3, 17)]
    assert calls.process_samples(gpu, samples[0].taken_at_us + 3_600_000_000) == ()


@on_all_boards
def test_gpm_averages_from_hopper_on(bench: Benches, model: str) -> None:
    """Between two samples of one device; before, a GPU says that it has none and gives no sample."""
    one = bench(model=model)
    gpu, calls = first(one.nvml), one.nvml.activity
    one.works(one.nvml.uuid(gpu), **_BUSY)
    if BOARDS[model].architecture < Architecture.HOPPER:
        assert not calls.has_gpm(gpu)
        assert refusal(lambda: calls.gpm_sample(gpu, None)) == Code.NOT_SUPPORTED
        return
    assert calls.has_gpm(gpu)
    earlier, later = (calls.gpm_sample(gpu, None) for _ in range(2))
    assert calls.gpm_percentages(earlier, later) == pytest.approx(_LOADED)
    for samples in ((later, earlier), (earlier, earlier)):
        assert refusal(partial(calls.gpm_percentages, *samples)) == Code.INVALID_ARGUMENT
    for sample in (earlier, later):
        calls.gpm_free(sample)


def test_work_that_began_is_seen_by_the_next_sample(bench: Benches) -> None:
    """As much as there is of it, whatever was before; nobody sees a peak that never was."""
    one = bench()
    gpu, calls = first(one.nvml), one.nvml.activity
    for sm in (0.5, 0.25, 0.75):
        earlier = calls.gpm_sample(gpu, None)
        one.works(one.nvml.uuid(gpu), sm=[sm])
        later = calls.gpm_sample(gpu, None)
        found = calls.gpm_percentages(earlier, later)
        assert found[GpmMetric.SM_UTIL] == pytest.approx(100 * sm)


@on_all_boards
def test_a_mig_devices_figures_are_read_back(bench: Benches, model: str) -> None:
    """Its own memory, processes with its numbers, its neighbour's not; what only whole GPUs have is refused."""
    one = bench(model=model, mode="mig")
    nvml, calls = one.nvml, one.nvml.activity
    gpu = first(nvml)
    devices = [mig_device(nvml, gpu, number) for number in range(2)]
    assert {device.uuid for device in calls.mig_devices(gpu)} == {one.uuid for one in devices}
    total = smallest(nvml, gpu)[0].memory_mib * _MIB
    one.works(devices[1].uuid, **_BUSY)
    used = [calls.memory_use(device.handle) for device in devices]
    assert used == [MemoryUse(total=total, used=0), MemoryUse(total=total, used=2048 * _MIB)]
    running = calls.processes(gpu)
    assert {process.pid for process in running} == {1, 2, 3}
    places = {(process.instance, process.compute) for process in running}
    assert places == {(devices[1].instance, devices[1].compute)}
    assert refusal(lambda: calls.utilization(gpu)) == Code.NOT_SUPPORTED
    assert refusal(lambda: calls.process_samples(gpu, 0)) == Code.NOT_SUPPORTED


@on_all_boards
def test_a_mig_device_that_is_gone_is_not_measured(bench: Benches, model: str) -> None:
    """Neither its memory nor its instance."""
    one = bench(model=model, mode="mig")
    nvml, calls = one.nvml, one.nvml.activity
    gpu = first(nvml)
    device = mig_device(nvml, gpu, 1)
    instance = nvml.gpu_instance(gpu, device.instance)
    nvml.destroy_compute_instance(nvml.compute_instance(instance, device.compute))
    nvml.destroy_gpu_instance(instance)
    assert not any((calls.mig_devices(gpu), calls.processes(gpu)))
    assert refusal(lambda: calls.memory_use(device.handle)) == Code.NOT_FOUND
    if calls.has_gpm(gpu):
        assert refusal(lambda: calls.gpm_sample(gpu, device.instance)) == Code.NOT_FOUND


def test_instances_are_sampled_each_for_itself(bench: Benches) -> None:
    """And samples of two devices have nothing between them."""
    one = bench(mode="mig")
    gpu, calls = first(one.nvml), one.nvml.activity
    busy, idle = (mig_device(one.nvml, gpu, number) for number in range(2))
    one.works(busy.uuid, **_BUSY)
    pairs = [[calls.gpm_sample(gpu, device.instance) for _ in range(2)] for device in (busy, idle)]
    assert calls.gpm_percentages(*pairs[0]) == pytest.approx(_LOADED)
    assert calls.gpm_percentages(*pairs[1]) == pytest.approx(dict.fromkeys(GpmMetric, 0))
    crossed = partial(calls.gpm_percentages, pairs[0][0], pairs[1][1])
    assert refusal(crossed) == Code.INVALID_ARGUMENT


def test_a_board_without_mig_has_no_mig_devices(bench: Benches) -> None:
    """Which is no error, as its other figures are to be had."""
    one = bench(model="L40S")
    assert one.nvml.activity.mig_devices(first(one.nvml)) == ()
    (whole,) = NvidiaBackend(one.nvml).activity(one.nvml.pci_addresses()[0])
    assert missing(whole) == _WITHOUT_GPM


@on_all_boards
def test_the_backends_figures_are_the_devices(bench: Benches, model: str) -> None:
    """Ratios, bytes and watts; what this GPU, or its mode, does not have is None and never 0."""
    one = bench(model=model)
    gpu, address = first(one.nvml), one.nvml.pci_addresses()[0]
    backend = NvidiaBackend(one.nvml)
    one.works(one.nvml.uuid(gpu), **_BUSY)
    backend.activity(address)
    (whole,) = backend.activity(address)
    has_gpm = BOARDS[model].architecture >= Architecture.HOPPER
    assert missing(whole) == (set() if has_gpm else _WITHOUT_GPM)
    assert (whole.utilization, whole.memory_utilization) == (1.0, 0.3)
    assert (whole.power_watts, whole.temperature_celsius) == (385.0, 52)
    assert whole.sm_activity == (pytest.approx(0.5) if has_gpm else None)
    assert whole.processes is not None
    assert GpuProcess(pid=2, memory_bytes=512 * _MIB, sm_ratio=0.17) in whole.processes
    one.works(one.nvml.uuid(gpu))
    if one.nvml.set_mig_mode(gpu, MigMode.ENABLED) == Code.SUCCESS:
        device = mig_device(one.nvml, gpu, 0)
        one.works(device.uuid, **_BUSY)
        backend.activity(address)
        whole, part = backend.activity(address)
        assert missing(whole) == {"utilization", "memory_utilization"}
        assert (part.uuid, part.memory_used_bytes) == (device.uuid, 2048 * _MIB)
        assert part.sm_activity == pytest.approx(0.5)


def test_samples_are_given_back(fake_bench: FakeBenches) -> None:
    """One for each device is kept between two looks, none after a failure of the taking, and none in the end."""
    one = fake_bench(mode="mig")
    gpu, address = first(one.nvml), one.host.addresses[0]
    for number in range(2):
        mig_device(one.nvml, gpu, number)
    backend = NvidiaBackend(one.nvml)

    def samples() -> int:
        with one.host.changing() as machine:
            return machine.samples

    for _ in range(3):
        backend.activity(address)
        assert samples() == 3
    with one.host.failing(address, "nvmlGpmMigSampleGet", code=Code.UNKNOWN):
        backend.activity(address)
    assert samples() == 1
    backend.close()
    assert samples() == 0


_FIGURES = {
    "DeviceGetUtilizationRates": {"utilization", "memory_utilization"},
    "DeviceGetMemoryInfo_v2": {"memory_used_bytes", "memory_total_bytes"},
    "DeviceGetPowerUsage": {"power_watts"},
    "DeviceGetTemperature": {"temperature_celsius"},
    "DeviceGetCurrentClocksEventReasons": {"throttled"},
    "DeviceGetComputeRunningProcesses_v3": {"processes"},
    "DeviceGetProcessUtilization": set[str](),
    "GpmQueryDeviceSupport": _WITHOUT_GPM,
    "GpmSampleGet": _WITHOUT_GPM,
    "GpmMetricsGet": _WITHOUT_GPM,
}


@pytest.mark.parametrize(("function", "figures"), _FIGURES.items(), ids=list(_FIGURES))
def test_each_figure_fails_alone(fake_bench: FakeBenches, function: str, figures: set[str]) -> None:
    """A driver that refuses one call gives the others; one that has lost the GPU gives nothing, and the other GPU's all."""
    one = fake_bench(count=2)
    sick, well = one.host.addresses
    one.works(one.nvml.uuid(first(one.nvml)), **_BUSY)
    with one.host.failing(sick, f"nvml{function}", code=Code.NO_PERMISSION):
        found = looked_at_twice(one.nvml, sick)
        assert missing(found) == figures
        assert missing(looked_at_twice(one.nvml, well)) == set()
    assert missing(looked_at_twice(one.nvml, sick)) == set()
    with (
        one.host.failing(sick, f"nvml{function}", code=Code.GPU_IS_LOST),
        pytest.raises(VendorError, match=f"GPU {sick}.*GPU_IS_LOST"),
    ):
        looked_at_twice(one.nvml, sick)
