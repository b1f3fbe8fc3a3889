"""Broken hardware below the backend: each fault, alone, changed from outside while the other GPUs are in use."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dra_driver.model.device import CreateStage, Placement, SetMode, Target
from dra_driver.model.errors import VendorError
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.nvml import Code, NvmlError
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.vendors.nvidia.simulated_faults import CALLS
from tests.vendors.faults import set_faults

Simulate = Callable[..., SimulatedNvml]

GPU, OTHER = "0000:1b:00.0", "0000:43:00.0"
STAGE = CreateStage(gpu=GPU, profile="1g.10gb", placement=Placement(6, 1), stage="gpu-instance")


def test_a_gpu_that_hangs_delays_no_other(simulate: Simulate, tmp_path: Path) -> None:
    """Each GPU in a thread of its own: seven are read, and the list is complete, while the eighth hangs; healed, it answers."""
    backend = NvidiaBackend(simulate(count=8))
    set_faults(tmp_path / "gpus", {GPU: {"hang_s": 3600}})
    addresses = backend.addresses()
    assert addresses[0] == GPU
    with ThreadPoolExecutor(8) as threads:
        hanging, *others = [threads.submit(backend.read, address) for address in addresses]
        try:
            read = [other.result(timeout=30) for other in others]
            assert [gpu.index for gpu in read] == [1, 2, 3, 4, 5, 6, 7]
            assert backend.addresses() == addresses
            assert not hanging.done()
        finally:
            set_faults(tmp_path / "gpus", {})
        assert hanging.result(timeout=30).index == 0


def test_a_hang_ends_with_its_time(simulate: Simulate, tmp_path: Path) -> None:
    """The call then goes on, late as a call that a caller gave up on."""
    nvml = simulate()
    set_faults(tmp_path / "gpus", {GPU: {"hang_s": 0.2, "calls": ["uuid"]}})
    began = time.monotonic()
    assert nvml.uuid(nvml.gpu_by_address(GPU)).startswith("GPU-")
    assert time.monotonic() - began >= 0.2


def test_a_delay_is_added_to_the_named_calls_alone(simulate: Simulate, tmp_path: Path) -> None:
    """What a benchmark needs of slow hardware; the work is done all the same."""
    nvml = simulate(mode="mig")
    set_faults(tmp_path / "gpus", {GPU: {"delay_s": 0.2, "calls": ["create_gpu_instance"]}})
    gpu = nvml.gpu_by_address(GPU)
    began = time.monotonic()
    nvml.create_gpu_instance(gpu, 19, Placement(0, 1))
    assert time.monotonic() - began >= 0.2
    assert len(nvml.gpu_instances(gpu, 19)) == 1


def test_an_error_strikes_the_named_calls_alone(simulate: Simulate, tmp_path: Path) -> None:
    """The rest of the GPU goes on, and nothing was done by the call that failed."""
    backend = NvidiaBackend(simulate(mode="mig"))
    fault = {"error": "INSUFFICIENT_RESOURCES", "calls": ["create_gpu_instance"]}
    set_faults(tmp_path / "gpus", {GPU: fault})
    with pytest.raises(NvmlError, match="INSUFFICIENT_RESOURCES"):
        backend.partition(STAGE)
    assert backend.read(GPU).instances == ()


def test_an_unplugged_gpu_is_gone_until_it_is_plugged_in(
    simulate: Simulate, tmp_path: Path
) -> None:
    """The others keep all that is said of them, whoever held a handle loses it, and afterwards all is as before."""
    nvml = simulate(count=3)
    backend = NvidiaBackend(nvml)
    before, handle = discover(backend), nvml.gpu_by_address(GPU)
    set_faults(tmp_path / "gpus", {GPU: {"absent": True}})
    assert discover(backend).gpus == before.gpus[1:]
    with pytest.raises(VendorError, match=f"{GPU} is not bound") as refused:
        backend.read(GPU)
    assert refused.value.retryable
    for ask in (lambda: backend.identify(Target(gpu=GPU)), lambda: backend.partition(STAGE)):
        with pytest.raises(VendorError, match=GPU):
            ask()
    with pytest.raises(NvmlError) as lost:
        nvml.mig_mode(handle)
    assert lost.value.code == Code.GPU_IS_LOST
    set_faults(tmp_path / "gpus", {})
    assert discover(backend) == before


def test_a_reloaded_driver_is_seen_without_a_restart(simulate: Simulate, tmp_path: Path) -> None:
    """While it is away every call says so and invites a retry; its new version is read from the next look on."""
    backend = NvidiaBackend(simulate())
    before = backend.read(GPU)
    set_faults(tmp_path / "gpus", {"driver": {"absent": True}})
    for ask in (
        backend.addresses,
        lambda: backend.read(GPU),
        lambda: backend.edits(Target(gpu=GPU)),
    ):
        with pytest.raises(VendorError, match="DRIVER_NOT_LOADED") as refused:
            ask()
        assert refused.value.retryable
    set_faults(tmp_path / "gpus", {"driver": {"version": "590.44.01"}})
    assert before.driver_version != backend.read(GPU).driver_version == "590.44.01"


def test_a_driver_can_hang_as_a_whole(simulate: Simulate, tmp_path: Path) -> None:
    """Even the list of GPUs then waits, until the driver is well."""
    backend = NvidiaBackend(simulate())
    set_faults(tmp_path / "gpus", {"driver": {"hang_s": 3600}})
    with ThreadPoolExecutor(1) as thread:
        hanging = thread.submit(backend.addresses)
        try:
            with pytest.raises(TimeoutError):
                hanging.result(timeout=0.2)
        finally:
            set_faults(tmp_path / "gpus", {})
        assert hanging.result(timeout=30) == (GPU,)


@pytest.mark.parametrize(("moment", "made"), [("before", 0), ("after", 1)])
def test_a_process_can_be_killed_within_a_call(
    simulate: Simulate, tmp_path: Path, moment: str, made: int
) -> None:
    """By SIGKILL, before the hardware has changed or after it has, and before anybody is told."""
    nvml = simulate(mode="mig")
    set_faults(tmp_path / "gpus", {GPU: {"kill": moment, "calls": ["create_gpu_instance"]}})
    script = """
import sys
from pathlib import Path
from dra_driver.config.machine import Machine
from dra_driver.model.device import Placement
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
machine = {"apiVersion": "gpu.dra-driver.dev/v1alpha1", "kind": "Machine", "name": "bench",
    "gpus": [{"vendor": "nvidia", "model": "H100-SXM5-80GB", "mode": "mig"}]}
nvml = SimulatedNvml(Machine.model_validate(machine), node="node-a", state_dir=Path(sys.argv[1]))
gpu = nvml.gpu_by_address("0000:1b:00.0")
print("alive", flush=True)
nvml.create_gpu_instance(gpu, 19, Placement(0, 1))
print("still alive", flush=True)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "gpus")],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "alive\n")
    assert len(nvml.gpu_instances(nvml.gpu_by_address(GPU), 19)) == made


def test_a_file_that_says_nothing_sensible_is_named(simulate: Simulate, tmp_path: Path) -> None:
    """Every call says which file, what is wrong and what would be possible, and succeeds once it is mended."""
    backend = NvidiaBackend(simulate())
    set_faults(tmp_path / "gpus", {GPU: {"error": "BROKEN"}})
    with pytest.raises(
        VendorError, match=r"faults\.json.*'BROKEN' is not one of.*GPU_IS_LOST"
    ) as refused:
        backend.addresses()
    assert refused.value.retryable
    set_faults(tmp_path / "gpus", {GPU: {"calls": ["gpu_uuid"]}})
    with pytest.raises(VendorError, match="'gpu_uuid' is not one of") as refused:
        backend.read(GPU)
    assert all(call in str(refused.value) for call in CALLS)
    (tmp_path / "gpus/faults.json").unlink()
    assert backend.read(GPU).pci_address == GPU


@pytest.mark.parametrize("call", sorted(CALLS))
def test_every_call_can_fail(simulate: Simulate, tmp_path: Path, call: str) -> None:
    """There is no call that the faults do not reach."""
    nvml = simulate(instances=[{"profile": "1g.10gb", "start": 6}])
    gpu = nvml.gpu_by_address(GPU)
    instance = nvml.gpu_instance(gpu, 1)
    compute = nvml.compute_instance(instance, 0)
    events = nvml.health.open_events(gpu)
    subject = {
        "gpu_instance_info": instance,
        "destroy_gpu_instance": instance,
        "compute_profile": instance,
        "create_compute_instance": instance,
        "compute_instances": instance,
        "compute_instance": instance,
        "compute_instance_info": compute,
        "destroy_compute_instance": compute,
        "gpu_by_address": GPU,
        "next_event": events,
        "close_events": events,
    }.get(call, gpu)
    of_the_driver = {"driver_version", "cuda_version", "pci_addresses", "capability_minor"}
    device = "driver" if call in of_the_driver else GPU
    set_faults(tmp_path / "gpus", {device: {"error": "UNKNOWN", "calls": [call]}})
    with pytest.raises(NvmlError) as refused:
        getattr(nvml if hasattr(nvml, call) else nvml.health, call)(subject)
    assert refused.value.code == Code.UNKNOWN


def test_changes_of_another_process_are_seen_at_once(simulate: Simulate) -> None:
    """Two libraries over one folder, as in two processes: neither remembers what the other may have changed."""
    ours, others = NvidiaBackend(simulate()), NvidiaBackend(simulate())
    assert ours.read(GPU).instances == ()
    others.partition(SetMode(gpu=GPU, mode="mig"))
    others.partition(STAGE)
    (seen,) = ours.read(GPU).instances
    assert (seen.profile, seen.placement, seen.complete) == ("1g.10gb", Placement(6, 1), False)


def test_faults_of_one_thread_do_not_hold_another(simulate: Simulate, tmp_path: Path) -> None:
    """A call that hangs on a GPU holds no lock that a change on another GPU, or on the same file of state, needs."""
    nvml = simulate(count=2, mode="mig")
    fault = {"hang_s": 3600, "calls": ["create_gpu_instance"]}
    set_faults(tmp_path / "gpus", {GPU: fault})
    gpu, entered = nvml.gpu_by_address(GPU), threading.Event()

    def create() -> None:
        entered.set()
        nvml.create_gpu_instance(gpu, 19, Placement(0, 1))

    with ThreadPoolExecutor(1) as thread:
        hanging = thread.submit(create)
        try:
            assert entered.wait(30)
            assert nvml.gpu_instances(gpu, 19) == ()
            other = nvml.gpu_by_address(OTHER)
            nvml.create_gpu_instance(other, 19, Placement(0, 1))
            assert len(nvml.gpu_instances(other, 19)) == 1
            assert not hanging.done()
        finally:
            set_faults(tmp_path / "gpus", {})
        hanging.result(timeout=30)
    assert len(nvml.gpu_instances(gpu, 19)) == 1
