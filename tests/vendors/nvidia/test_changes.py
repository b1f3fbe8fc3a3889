"""Single hardware changes: what is refused, whether a retry is invited, and what counts as done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dra_driver.model.device import (
    CreateStage,
    DestroyStage,
    Placement,
    SetMode,
)
from dra_driver.model.errors import VendorError
from dra_driver.ports import Backend
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia import simulated_smi
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from tests.vendors.faults import set_faults

Simulate = Callable[..., SimulatedNvml]

GPU = "0000:1b:00.0"


def refusal(backend: Backend, change: SetMode | CreateStage | DestroyStage) -> VendorError:
    with pytest.raises(VendorError) as refused:
        backend.partition(change)
    assert GPU in str(refused.value)
    return refused.value


@pytest.mark.parametrize(
    ("profile", "placement", "words"),
    [
        pytest.param("1g.10gb", Placement(4, 1), "INSUFFICIENT_RESOURCES", id="occupied"),
        pytest.param("3g.40gb", Placement(2, 4), "INVALID_ARGUMENT", id="no-such-start"),
        pytest.param(
            "1g.5gb", Placement(0, 1), "'1g.5gb' is none of 1g.10gb", id="no-such-profile"
        ),
    ],
)
def test_wrong_placements_are_refused_for_good(
    simulate: Simulate, profile: str, placement: Placement, words: str
) -> None:
    """Beside a 3g at 4; a retry would change nothing, so none is invited."""
    backend = NvidiaBackend(simulate(instances=[{"profile": "3g.40gb", "start": 4}]))
    change = CreateStage(gpu=GPU, profile=profile, placement=placement, stage="gpu-instance")
    error = refusal(backend, change)
    assert words in str(error)
    assert not error.retryable


def test_a_compute_instance_goes_into_its_own_parent_only(simulate: Simulate) -> None:
    """Ids are used again: a parent that is another instance by now is refused."""
    backend = NvidiaBackend(simulate(mode="mig", instances=[{"profile": "1g.10gb", "start": 0}]))
    change = CreateStage(
        gpu=GPU,
        profile="1g.10gb",
        placement=Placement(1, 1),
        stage="compute-instance",
        parent="gi-1",
    )
    assert "gi-1 is another instance by now" in str(refusal(backend, change))


def made(stage: str) -> CreateStage:
    """What made the smallest partition at the end."""
    return CreateStage(gpu=GPU, profile="1g.10gb", placement=Placement(6, 1), stage=stage)


def test_an_identity_used_again_is_left_alone(simulate: Simulate) -> None:
    """A partition of another profile or placement has the number by now: it is not ours to destroy."""
    backend = NvidiaBackend(simulate(instances=[{"profile": "2g.20gb", "start": 0}]))
    before = discover(backend)
    (instance,) = before.gpus[0].instances
    for stage, identity in [("compute-instance", instance.identity), ("gpu-instance", "gi-1")]:
        assert backend.partition(DestroyStage(created=made(stage), identity=identity)) == identity
    assert discover(backend) == before


def test_destroying_what_is_gone_is_done(simulate: Simulate) -> None:
    """Either stage, with MIG on or off."""
    backend = NvidiaBackend(simulate())
    for _ in range(2):
        for identity, stage in [("gi-3/ci-0", "compute-instance"), ("gi-3", "gpu-instance")]:
            assert (
                backend.partition(DestroyStage(created=made(stage), identity=identity)) == identity
            )
        backend.partition(SetMode(gpu=GPU, mode="mig"))


@pytest.mark.parametrize("call", ["gpu_by_address", "gpu_instance", "destroy_gpu_instance"])
def test_destroying_on_a_lost_gpu_is_done(simulate: Simulate, tmp_path: Path, call: str) -> None:
    """Whenever it is lost: its reset leaves no instance, so nothing has to wait for it. Making one is still refused."""
    backend = NvidiaBackend(simulate(instances=[{"profile": "1g.10gb", "start": 6}]))
    (instance,) = discover(backend).gpus[0].instances
    compute = DestroyStage(created=made("compute-instance"), identity=instance.identity)
    parent = DestroyStage(
        created=made("gpu-instance"), identity=instance.identity.partition("/")[0]
    )
    backend.partition(compute)
    set_faults(tmp_path / "gpus", {GPU: {"error": "GPU_IS_LOST", "calls": [call]}})
    assert backend.partition(parent) == parent.identity
    set_faults(tmp_path / "gpus", {GPU: {"error": "GPU_IS_LOST"}})
    assert backend.partition(compute) == compute.identity
    assert "GPU_IS_LOST" in str(refusal(backend, made("gpu-instance")))


def test_destroying_in_use_may_be_tried_again(simulate: Simulate, tmp_path: Path) -> None:
    """A process still on the partition: IN_USE, retryable, and done once it has ended."""
    backend = NvidiaBackend(simulate(instances=[{"profile": "2g.20gb", "start": 0}]))
    (instance,) = discover(backend).gpus[0].instances
    set_faults(tmp_path / "gpus", {instance.uuid: {"busy": True}})
    created = CreateStage(
        gpu=GPU, profile="2g.20gb", placement=Placement(0, 2), stage="compute-instance"
    )
    change = DestroyStage(created=created, identity=instance.identity)
    error = refusal(backend, change)
    assert error.retryable
    assert "end the processes" in str(error)
    set_faults(tmp_path / "gpus", {})
    assert backend.partition(change) == instance.identity


def test_an_identity_that_is_none_is_refused(simulate: Simulate) -> None:
    """A damaged record must not destroy something else."""
    backend = NvidiaBackend(simulate())
    assert "gi-1/../2" in str(
        refusal(backend, DestroyStage(created=made("gpu-instance"), identity="gi-1/../2"))
    )


def test_the_mode_changes_and_its_identity_is_the_former(simulate: Simulate) -> None:
    """Whole to MIG and back; asking for the present mode changes nothing."""
    backend = NvidiaBackend(simulate())
    modes = ["mig", "mig", "whole", "whole"]
    assert [backend.partition(SetMode(gpu=GPU, mode=mode)) for mode in modes] == [
        "whole",
        "mig",
        "mig",
        "whole",
    ]


def test_leaving_mig_names_the_instances_in_the_way(simulate: Simulate) -> None:
    """NVML would only say that the GPU is in use."""
    spec = [{"profile": "3g.40gb", "start": 4}, {"profile": "1g.10gb", "start": 2}]
    backend = NvidiaBackend(simulate(instances=spec))
    error = refusal(backend, SetMode(gpu=GPU, mode="whole"))
    assert "1g.10gb at 2, 3g.40gb at 4" in str(error)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"busy": True}, "IN_USE"),
        (
            {"busy": True, "users": ["dcgm (pid 4711)", "top (pid 9)"]},
            "dcgm (pid 4711), top (pid 9)",
        ),
    ],
)
def test_a_mode_that_cannot_be_now_is_not_left_pending(
    simulate: Simulate, tmp_path: Path, fault: dict[str, Any], words: str
) -> None:
    """Nothing waits for the next reset to surprise somebody; the error names who is in the way, and may be retried."""
    nvml = simulate()
    set_faults(tmp_path / "gpus", {GPU: fault})
    error = refusal(NvidiaBackend(nvml), SetMode(gpu=GPU, mode="mig"))
    assert words in str(error)
    assert (error.retryable, error.refused) == (True, True)
    assert nvml.mig_mode(nvml.gpu_by_address(GPU)) == (0, 0)


def test_a_mode_that_needs_a_reset_is_not_even_tried(simulate: Simulate, tmp_path: Path) -> None:
    """On an A100: the error says what an administrator has to do."""
    backend = NvidiaBackend(simulate(model="A100-SXM4-80GB"))
    set_faults(tmp_path / "gpus", {GPU: {"error": "UNKNOWN", "calls": ["set_mig_mode"]}})
    error = refusal(backend, SetMode(gpu=GPU, mode="mig"))
    assert f"needs a reset; let an administrator do both: nvidia-smi -i {GPU} -mig 1" in str(error)
    assert (error.retryable, error.refused) == (True, True)


def test_a_board_with_mig_on_from_the_start_serves_partitions_without_a_switch(
    simulate: Simulate,
) -> None:
    """An A100 whose administrator has turned MIG on: made and unmade as on any other."""
    backend = NvidiaBackend(simulate(model="A100-SXM4-80GB", mode="mig"))
    made_here = simulated_smi.create(backend, GPU, "3g.40gb", 4)
    (instance,) = backend.read(GPU).instances
    assert (instance.identity, instance.complete) == (made_here, True)
    simulated_smi.destroy(backend, GPU, 4)
    assert backend.read(GPU).instances == ()


def test_modes_of_other_vendors_are_refused(simulate: Simulate) -> None:
    """CPX is no mode of an NVIDIA GPU."""
    assert "'CPX'" in str(refusal(NvidiaBackend(simulate()), SetMode(gpu=GPU, mode="CPX")))


def test_a_board_without_mig_has_no_mode_to_change(simulate: Simulate) -> None:
    """The error says that this GPU cannot do it, and no retry is invited."""
    error = refusal(NvidiaBackend(simulate(model="L40S")), SetMode(gpu=GPU, mode="mig"))
    assert "NOT_SUPPORTED" in str(error)
    assert not error.retryable
