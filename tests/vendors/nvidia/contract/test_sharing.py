"""One machine and several processes on it, a driver that goes and comes, calls that fail and hang: through real ctypes."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from ctypes import Structure, byref, c_char, c_uint, c_ulonglong, sizeof
from pathlib import Path
from typing import ClassVar

import pynvml
import pytest

from dra_driver.model.device import Placement
from dra_driver.model.errors import VendorError
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.nvml import Code, MigMode
from tests.vendors.nvidia.contract.boards import first, largest, refusal, smallest
from tests.vendors.nvidia.contract.conftest import Hosts, OnHost

_RACER = """
import sys
from pathlib import Path
from dra_driver.model.device import Placement
from dra_driver.vendors.nvidia.nvml import NvmlError
from dra_driver.vendors.nvidia.driver_root import DriverRoot
from dra_driver.vendors.nvidia.sdk import PynvmlNvml
nvml = PynvmlNvml(DriverRoot(host_root=Path(sys.argv[1])))
gpu = nvml.gpu_by_address(nvml.pci_addresses()[0])
for start in range(7):
    try:
        instance = nvml.create_gpu_instance(gpu, 19, Placement(start, 1))
    except NvmlError:
        continue
    nvml.create_compute_instance(instance, 0)
    print(start)
"""


def racer(root: Path) -> subprocess.Popen[str]:
    """A process that makes every 1g it can."""
    command = [sys.executable, "-c", _RACER, str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_the_library_comes_from_the_hosts_root(fake_host: Hosts, on_host: OnHost) -> None:
    """Though the loader knows no NVML here; and the address of a GPU may be written as NVML writes it."""
    host = fake_host()
    nvml = on_host(host)
    assert nvml.driver_version() == "580.105.08"
    assert Path(pynvml.nvmlLib._name) == host.root / "usr/lib64/libnvidia-ml.so.1"
    assert nvml.uuid(nvml.gpu_by_address("00000000:1B:00.0")) == nvml.uuid(first(nvml))


@pytest.mark.parametrize(
    "folder", ["usr/lib/x86_64-linux-gnu/nvidia/current", "run/nvidia/driver/usr/lib64", "lib64"]
)
def test_the_library_is_found_where_distributions_keep_it(
    fake_host: Hosts, on_host: OnHost, folder: str
) -> None:
    """Debian's folder, the driver container of the GPU operator, and a plain one."""
    host = fake_host()
    there = host.root / folder
    there.parent.mkdir(parents=True, exist_ok=True)
    (host.root / "usr/lib64").rename(there)
    assert on_host(host).cuda_version() == 13000


def test_a_library_that_cannot_be_loaded_is_named(fake_host: Hosts, on_host: OnHost) -> None:
    """With its path, and what the loader says of it."""
    host = fake_host()
    library = host.root / "usr/lib64/libnvidia-ml.so.1"
    library.write_bytes(b"not a library")
    with pytest.raises(VendorError, match=f"{library}.*LIBRARY_NOT_FOUND"):
        on_host(host).driver_version()


def test_two_processes_see_one_machine(fake_host: Hosts, on_host: OnHost) -> None:
    """What another process made is there, and what it left of the GPU is all that can be made."""
    host = fake_host(mode="mig")
    nvml = on_host(host)
    gpu = first(nvml)
    nvml.create_gpu_instance(gpu, 9, Placement(4, 4))
    out, _ = racer(host.root).communicate(timeout=30)
    assert out.split() == ["0", "1", "2", "3"]
    assert len(nvml.gpu_instances(gpu, 19)) == len(nvml.mig_uuids(gpu)) == 4
    for instance in nvml.gpu_instances(gpu, 19):
        (compute,) = nvml.compute_instances(instance, 0)
        nvml.destroy_compute_instance(compute)
        nvml.destroy_gpu_instance(instance)
    assert nvml.mig_uuids(gpu) == {}


def test_processes_that_race_never_both_win(fake_host: Hosts, on_host: OnHost) -> None:
    """Three processes try all places at once: each place goes to one of them, with a UUID of its own."""
    host = fake_host(mode="mig")
    racers = [racer(host.root) for _ in range(3)]
    won = [line for one in racers for line in one.communicate(timeout=50)[0].split()]
    assert sorted(won) == list("0123456")
    nvml = on_host(host)
    assert len(set(nvml.mig_uuids(first(nvml)).values())) == 7


def test_a_reloaded_driver_is_found_again(fake_host: Hosts, on_host: OnHost) -> None:
    """While it is away each read says so and invites a retry; afterwards all is as before, without the instances."""
    host = fake_host(count=2, mode="mig", model="A100-SXM4-40GB")
    nvml = on_host(host)
    backend = NvidiaBackend(nvml)
    before = discover(backend).gpus
    profile, place = largest(nvml, first(nvml))
    instance = nvml.create_gpu_instance(first(nvml), profile.id, place)
    host.unload()
    for _ in range(2):
        with pytest.raises(VendorError, match="load the nvidia kernel module") as refused:
            backend.read(host.addresses[0])
        assert refused.value.retryable
    host.load()
    assert discover(backend).gpus == before
    assert refusal(lambda: nvml.gpu_instance_info(instance)) == Code.UNINITIALIZED


def test_a_driver_that_was_reloaded_between_two_calls_is_found_by_the_next(
    fake_host: Hosts, on_host: OnHost
) -> None:
    """Nobody saw it away: NVML is initialised anew, once, answers, and takes no handle from before."""
    host = fake_host()
    nvml = on_host(host)
    backend, handle = NvidiaBackend(nvml), first(nvml)
    before = backend.read(host.addresses[0])
    host.unload()
    host.load()
    assert backend.read(host.addresses[0]) == before
    assert refusal(lambda: nvml.name(handle)) == Code.UNINITIALIZED
    handle = first(nvml)
    assert backend.read(host.addresses[0]) == before
    assert nvml.name(handle)


def test_a_mode_waits_for_the_reset(fake_host: Hosts, on_host: OnHost) -> None:
    """On an A100 it is pending until then."""
    host = fake_host(model="A100-SXM4-40GB")
    nvml = on_host(host)
    assert nvml.set_mig_mode(first(nvml), MigMode.ENABLED) == Code.RESET_REQUIRED
    host.reset(host.addresses[0])
    assert nvml.mig_mode(first(nvml)) == (MigMode.ENABLED, MigMode.ENABLED)


def test_a_busy_gpu_keeps_its_mode_and_its_devices(fake_host: Hosts, on_host: OnHost) -> None:
    """IN_USE is why the mode is pending, and why a MIG device cannot go; later both work."""
    host = fake_host()
    nvml = on_host(host)
    gpu, address = first(nvml), host.addresses[0]
    host.set_busy(address, busy=True)
    assert nvml.set_mig_mode(gpu, MigMode.ENABLED) == Code.IN_USE
    assert nvml.mig_mode(gpu) == (MigMode.DISABLED, MigMode.ENABLED)
    host.set_busy(address, busy=False)
    assert nvml.set_mig_mode(gpu, MigMode.ENABLED) == Code.SUCCESS
    profile, (place, *_) = smallest(nvml, gpu)
    compute = nvml.create_compute_instance(nvml.create_gpu_instance(gpu, profile.id, place), 0)
    host.set_busy(address, busy=True)
    assert refusal(lambda: nvml.destroy_compute_instance(compute)) == Code.IN_USE
    host.set_busy(address, busy=False)
    nvml.destroy_compute_instance(compute)


def test_one_function_of_one_gpu_fails_alone(fake_host: Hosts, on_host: OnHost) -> None:
    """With the code that it was given, as often as it was told; others answer."""
    host = fake_host(count=2)
    nvml = on_host(host)
    sick, well = (nvml.gpu_by_address(at) for at in host.addresses)
    with host.failing(host.addresses[0], "nvmlDeviceGetName", code=Code.GPU_IS_LOST):
        for _ in range(2):
            assert refusal(lambda: nvml.name(sick)) == Code.GPU_IS_LOST
        assert nvml.uuid(sick)
        assert nvml.name(well)
    host.fail_once(host.addresses[0], "nvmlDeviceGetUUID", Code.TIMEOUT)
    assert refusal(lambda: nvml.uuid(sick)) == Code.TIMEOUT
    assert nvml.uuid(sick)


def test_a_call_that_hangs_leaves_others_alone(fake_host: Hosts, on_host: OnHost) -> None:
    """Other GPUs, and even the same one, answer this process and another one meanwhile; NVML stays initialised under it."""
    host = fake_host(count=2, mode="mig")
    nvml = on_host(host)
    hung, well = (nvml.gpu_by_address(at) for at in host.addresses)
    with ThreadPoolExecutor(1) as thread:
        with host.failing(host.addresses[0], "nvmlDeviceGetName", delay_ms=3_600_000) as until_met:
            hanging = thread.submit(nvml.name, hung)
            until_met()
            assert nvml.name(well)
            assert nvml.uuid(hung)
            out, _ = racer(host.root).communicate(timeout=30)
            assert out.split() == list("0123456")
            nvml.close()
            assert nvml.uuid(well)
            assert not hanging.done()
        assert hanging.result(timeout=30) == nvml.name(well)


def test_threads_make_instances_on_all_gpus_at_once(fake_host: Hosts, on_host: OnHost) -> None:
    """One thread for each GPU, as in the plugin: each gets what it made, and nothing of another's."""
    host = fake_host(count=4, mode="mig")
    nvml = on_host(host)
    start = threading.Barrier(4)

    def fill(address: str) -> int:
        gpu = nvml.gpu_by_address(address)
        profile, places = smallest(nvml, gpu)
        start.wait(30)
        for place in places:
            nvml.create_compute_instance(nvml.create_gpu_instance(gpu, profile.id, place), 0)
        return len(nvml.mig_uuids(gpu))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(fill, host.addresses)) == [7, 7, 7, 7]


class ThirdProfileInfo(Structure):
    """`nvmlGpuInstanceProfileInfo_v3_t`, for which pynvml has no structure."""

    _fields_: ClassVar = [
        *((name, c_uint) for name in ("version", "id", "slices", "limit", "multiprocessors")),
        ("engines", c_uint * 5),
        ("memory_mib", c_ulonglong),
        ("name", c_char * 96),
        ("capabilities", c_uint),
    ]


def test_profiles_are_given_in_each_version_of_their_structure(
    fake_host: Hosts, on_host: OnHost
) -> None:
    """The binding asks for the second, other clients for the third, and one that nobody knows is refused."""
    nvml = on_host(fake_host())
    gpu = first(nvml)
    ask = pynvml.nvmlLib.nvmlDeviceGetGpuInstanceProfileInfoV
    info = ThirdProfileInfo(version=sizeof(ThirdProfileInfo) | 3 << 24)
    assert ask(gpu.value, 2, byref(info)) == Code.SUCCESS
    known = nvml.gpu_profile(gpu, 2)
    assert (info.id, info.slices, info.memory_mib) == (known.id, known.slices, known.memory_mib)
    assert info.name == b"MIG 3g.40gb"
    info.version = sizeof(ThirdProfileInfo) | 9 << 24
    assert ask(gpu.value, 2, byref(info)) == pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH


def test_a_call_waits_while_another_process_changes_the_machine(
    fake_host: Hosts, on_host: OnHost
) -> None:
    """It answers when the other is done, and with what that one made of it."""
    host = fake_host()
    nvml = on_host(host)
    gpu = first(nvml)
    with ThreadPoolExecutor(1) as thread:
        with host.changing() as machine:
            asking = thread.submit(nvml.mig_mode, gpu)
            assert wait([asking], timeout=0.2).not_done
            machine.gpus[0].mode = machine.gpus[0].pending = MigMode.ENABLED
        assert asking.result(timeout=30) == (MigMode.ENABLED, MigMode.ENABLED)


def test_instances_are_numbered_by_size_and_place(fake_host: Hosts, on_host: OnHost) -> None:
    """As drivers do it: the whole GPU is 0, which is a number like any other, its halves are 1 and 2, eighths 7 to 14."""
    nvml = on_host(fake_host(mode="mig"))
    gpu = first(nvml)
    numbers = []
    for index, place in [(4, (0, 8)), (2, (4, 4)), (1, (0, 2)), (0, (2, 1)), (0, (3, 1))]:
        made = nvml.create_gpu_instance(gpu, nvml.gpu_profile(gpu, index).id, Placement(*place))
        numbers.append(nvml.gpu_instance_info(made).id)
        if index == 4:
            nvml.destroy_gpu_instance(made)
    assert numbers == [0, 2, 3, 9, 10]
