"""Simulated NVML against the driver's rules: places, engines, errors, lifetimes, and several processes at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dra_driver.model.device import Placement
from dra_driver.model.errors import MachineError
from dra_driver.vendors.nvidia.nvml import Code, MigMode, NvmlError
from dra_driver.vendors.nvidia.profiles import BOARDS
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.vendors.nvidia.simulated_gpu import SimulatedGpu
from tests.vendors.faults import set_faults

Simulate = Callable[..., SimulatedNvml]

ONE, ONE_MEDIA, THREE, SEVEN = 19, 20, 9, 0


def gpu_of(nvml: SimulatedNvml, index: int) -> SimulatedGpu:
    """Its handle."""
    return nvml.gpu_by_address(nvml.pci_addresses()[index])


def refusal(ask: Callable[[], object]) -> int:
    with pytest.raises(NvmlError) as refused:
        ask()
    return refused.value.code


def test_a_dgx_looks_like_a_dgx(simulate: Simulate) -> None:
    """Eight GPUs sit at a DGX's addresses, four on each NUMA node, each below a root of its own."""
    nvml = simulate(count=8)
    addresses = nvml.pci_addresses()
    buses = ["1b", "43", "52", "61", "9d", "c3", "d1", "df"]
    assert addresses == tuple(f"0000:{bus}:00.0" for bus in buses)
    places = [nvml.pci_place(address) for address in addresses]
    assert [place.numa_node for place in places] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert len({place.root for place in places}) == 8


def test_more_gpus_than_a_dgx_have_addresses_too(simulate: Simulate) -> None:
    """Sixteen GPUs have sixteen addresses and UUIDs."""
    nvml = simulate(count=16)
    gpus = [gpu_of(nvml, index) for index in range(16)]
    assert len(set(nvml.pci_addresses())) == 16
    assert len({nvml.uuid(gpu) for gpu in gpus}) == 16


def test_instances_need_mig_mode(simulate: Simulate) -> None:
    """With MIG off profiles can be asked for, instances cannot."""
    nvml = simulate()
    gpu = gpu_of(nvml, 0)
    assert nvml.gpu_profile(gpu, 0).id == ONE
    assert refusal(lambda: nvml.gpu_instances(gpu, ONE)) == Code.NOT_SUPPORTED
    assert (
        refusal(lambda: nvml.create_gpu_instance(gpu, ONE, Placement(0, 1))) == Code.NOT_SUPPORTED
    )


def test_boards_without_mig_refuse_all_of_it(simulate: Simulate) -> None:
    """An L40S has no mode and no profiles."""
    nvml = simulate(model="L40S")
    gpu = gpu_of(nvml, 0)
    assert refusal(lambda: nvml.mig_mode(gpu)) == Code.NOT_SUPPORTED
    assert refusal(lambda: nvml.set_mig_mode(gpu, MigMode.ENABLED)) == Code.NOT_SUPPORTED
    assert refusal(lambda: nvml.gpu_profile(gpu, 0)) == Code.NOT_SUPPORTED


@pytest.mark.parametrize(
    ("profile_id", "placement", "code"),
    [
        pytest.param(ONE, Placement(6, 1), Code.INSUFFICIENT_RESOURCES, id="occupied"),
        pytest.param(ONE_MEDIA, Placement(0, 1), Code.INSUFFICIENT_RESOURCES, id="no-engine-left"),
        pytest.param(ONE, Placement(7, 1), Code.INVALID_ARGUMENT, id="no-such-start"),
        pytest.param(99, Placement(0, 1), Code.NOT_SUPPORTED, id="no-such-profile"),
    ],
)
def test_what_does_not_fit_is_refused(
    simulate: Simulate, profile_id: int, placement: Placement, code: Code
) -> None:
    """Beside a 1g+me at 6 the driver's own errors come back."""
    nvml = simulate(mode="mig", instances=[{"profile": "1g.10gb+me", "start": 6}])
    gpu = gpu_of(nvml, 0)
    assert refusal(lambda: nvml.create_gpu_instance(gpu, profile_id, placement)) == code


def test_instances_in_use_stay(simulate: Simulate, tmp_path: Path) -> None:
    """A GPU instance with a compute instance, and a MIG device with a process, cannot be destroyed; nor the mode left."""
    nvml = simulate(mode="mig", instances=[{"profile": "3g.40gb", "start": 4}])
    gpu = gpu_of(nvml, 0)
    (instance,) = nvml.gpu_instances(gpu, THREE)
    compute = nvml.compute_instance(instance, 0)
    (uuid,) = nvml.mig_uuids(gpu).values()
    set_faults(tmp_path / "gpus", {uuid: {"busy": True}})
    assert refusal(lambda: nvml.destroy_compute_instance(compute)) == Code.IN_USE
    assert refusal(lambda: nvml.destroy_gpu_instance(instance)) == Code.IN_USE
    assert refusal(lambda: nvml.set_mig_mode(gpu, MigMode.DISABLED)) == Code.IN_USE
    set_faults(tmp_path / "gpus", {})
    nvml.destroy_compute_instance(compute)
    nvml.destroy_gpu_instance(instance)
    assert nvml.set_mig_mode(gpu, MigMode.DISABLED) == Code.SUCCESS
    assert refusal(lambda: nvml.gpu_instance_info(instance)) == Code.NOT_FOUND


def test_ids_are_used_again_and_uuids_are_not(simulate: Simulate) -> None:
    """The lowest free id is taken, but a MIG device made anew is another device."""
    nvml = simulate(mode="mig")
    gpu = gpu_of(nvml, 0)
    seen = []
    for _ in range(2):
        instance = nvml.create_gpu_instance(gpu, SEVEN, Placement(0, 8))
        compute = nvml.create_compute_instance(instance, 4)
        seen.append(nvml.mig_uuids(gpu))
        nvml.destroy_compute_instance(compute)
        nvml.destroy_gpu_instance(instance)
    assert seen[0].keys() == seen[1].keys()
    assert set(seen[0].values()).isdisjoint(seen[1].values())


def test_compute_instances_share_the_slices_of_their_gpu_instance(simulate: Simulate) -> None:
    """Two compute slices of three leave one: another two do not fit, four were never possible."""
    nvml = simulate(mode="mig")
    instance = nvml.create_gpu_instance(gpu_of(nvml, 0), THREE, Placement(0, 4))
    nvml.create_compute_instance(instance, 1)
    assert refusal(lambda: nvml.create_compute_instance(instance, 1)) == Code.INSUFFICIENT_RESOURCES
    assert refusal(lambda: nvml.create_compute_instance(instance, 3)) == Code.NOT_SUPPORTED
    nvml.create_compute_instance(instance, 0)


def test_a_failing_gpu_fails_alone(simulate: Simulate, tmp_path: Path) -> None:
    """It still is in the list, answers all else with its error, and the GPU beside it is well."""
    nvml = simulate(count=2)
    lost, well = gpu_of(nvml, 0), gpu_of(nvml, 1)
    set_faults(tmp_path / "gpus", {nvml.pci_addresses()[0]: {"error": "GPU_IS_LOST"}})
    assert refusal(lambda: nvml.uuid(lost)) == Code.GPU_IS_LOST
    assert refusal(lambda: nvml.mig_mode(lost)) == Code.GPU_IS_LOST
    assert nvml.uuid(well).startswith("GPU-")


def test_hardware_outlives_processes(simulate: Simulate) -> None:
    """A second NVML on the same folder sees what the first one made, with the same UUIDs, and not the profile's start."""
    first = simulate(mode="mig")
    gpu = gpu_of(first, 0)
    instance = first.create_gpu_instance(gpu, ONE, Placement(3, 1))
    first.create_compute_instance(instance, 0)
    second = simulate(mode="mig")
    assert second.mig_uuids(gpu_of(second, 0)) == first.mig_uuids(gpu)
    assert second.uuid(gpu_of(second, 0)) == first.uuid(gpu)


def test_processes_that_race_for_slices_never_both_win(simulate: Simulate, tmp_path: Path) -> None:
    """Four processes try all seven 1g placements at once: each placement is made exactly once."""
    nvml = simulate(mode="mig")
    script = """
import sys
from pathlib import Path
from dra_driver.config.machine import load_machine
from dra_driver.model.device import Placement
from dra_driver.vendors.nvidia.nvml import NvmlError
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
nvml = SimulatedNvml(load_machine("8xh100-80"), node="node-a", state_dir=Path(sys.argv[1]))
for start in range(7):
    try:
        nvml.create_gpu_instance(nvml.gpu_by_address(nvml.pci_addresses()[0]), 19, Placement(start, 1))
        print(start)
    except NvmlError:
        pass
"""
    command = [sys.executable, "-c", script, str(tmp_path / "gpus")]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    won = [line for racer in racers for line in racer.communicate(timeout=30)[0].split()]
    assert sorted(won) == ["0", "1", "2", "3", "4", "5", "6"]
    gpu = gpu_of(nvml, 0)
    infos = [nvml.gpu_instance_info(i) for i in nvml.gpu_instances(gpu, ONE)]
    assert len({info.id for info in infos}) == len({info.placement for info in infos}) == 7


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param({"model": "H100"}, ["'H100'", *BOARDS], id="unknown-model"),
        pytest.param({"mode": "MIG"}, ["'MIG'", "whole", "mig"], id="unknown-mode"),
        pytest.param({"model": "L40S", "mode": "mig"}, ["L40S has no MIG"], id="no-mig"),
        pytest.param(
            {"mode": "whole", "instances": [{"profile": "1g.10gb", "start": 0}]},
            ["whole has no instances"],
            id="instances-without-mig",
        ),
        pytest.param(
            {"instances": [{"profile": "1g.5gb", "start": 0}]},
            ["'1g.5gb'", "1g.10gb+me", "7g.80gb"],
            id="another-boards-profile",
        ),
        pytest.param(
            {"instances": [{"profile": "4g.40gb", "start": 0}, {"profile": "3g.40gb", "start": 0}]},
            ["3g.40gb cannot stand at 0", "possible starts: 4"],
            id="overlap",
        ),
        pytest.param(
            {"instances": [{"profile": "7g.80gb", "start": 0}, {"profile": "1g.10gb", "start": 0}]},
            ["possible starts: none"],
            id="full",
        ),
    ],
)
def test_impossible_machines_are_refused(
    simulate: Simulate, spec: dict[str, object], words: list[str]
) -> None:
    """The message names the machine, the GPU, the value and what would be possible."""
    with pytest.raises(MachineError) as refused:
        simulate(**spec)
    for word in ["machine bench", "GPU 0000:1b:00.0", *words]:
        assert word in str(refused.value)
