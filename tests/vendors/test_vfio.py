"""Which GPUs may not change hands now, and who is told why."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dra_driver.model.device import (
    Passthrough,
    Target,
)
from dra_driver.model.errors import VendorError
from dra_driver.vendors.holders import Holder
from dra_driver.vendors.vfio import Vfio, write_file
from dra_driver.vendors.vfio_simulated import SimulatedBus
from tests.vendors.vfio_host import (
    AUDIO,
    AWAY,
    BIND,
    GPU,
    NATIVE,
    OTHER,
    UNBIND,
    Host,
    machine,
)


def test_a_gpu_in_use_does_not_go(host: Host) -> None:
    """The processes are named, nothing was written; only nodes of this one GPU count as use, not those of all."""
    host.users = (Holder(pid=7, name="dcgm"),)
    with pytest.raises(VendorError, match=r"in use by dcgm \(PID 7\); end what uses it") as refused:
        host.process().partition(BIND)
    assert refused.value.retryable
    assert host.writes == []
    assert host.looked_for == {"/dev/nvidia0"}


def test_a_gpu_in_a_running_machine_does_not_come_back(host: Host) -> None:
    """The kernel would wait for the machine for ever; so it is named instead, and the GPU stays where it is."""
    host.process().partition(BIND)
    host.users, host.looked_for = (Holder(pid=8, name="qemu"),), set()
    with pytest.raises(VendorError, match=r"in use by qemu \(PID 8\)"):
        host.process().partition(UNBIND)
    assert host.drivers() == AWAY
    assert host.looked_for == {
        "/dev/vfio/16",
        "/dev/vfio/devices/vfio0",
        "/dev/vfio/devices/vfio1",
    }


def test_a_gpu_with_instances_does_not_go(tmp_path: Path) -> None:
    """They are named, and nothing was written."""
    host = Host(tmp_path, machine(mode="mig", instances=[{"profile": "1g.10gb", "start": 2}]))
    with pytest.raises(VendorError, match=r"instances exist \(1g\.10gb at 2\)"):
        host.process().partition(BIND)
    assert host.writes == []


def share_the_group(host: Host) -> None:
    other = host.device(GPU) / "iommu_group/devices" / OTHER
    other.symlink_to(host.device(OTHER))


def turn_the_iommu_off(host: Host) -> None:
    (host.device(GPU) / "iommu_group").unlink()


def unload_the_module(host: Host) -> None:
    (host.sys / "bus/pci/drivers/vfio-pci").rename(host.sys / "elsewhere")


def make_virtual_functions(host: Host) -> None:
    (host.device(GPU) / "sriov_numvfs").write_text("4\n")


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (share_the_group, f"its IOMMU group 16 also holds {OTHER}; put it into another slot"),
        (turn_the_iommu_off, "it is in no IOMMU group; turn the IOMMU on"),
        (unload_the_module, "the kernel module vfio-pci is not loaded; load it"),
        (make_virtual_functions, "while it has virtual functions; write 0 to its sriov_numvfs"),
    ],
)
def test_a_gpu_that_cannot_go_is_not_offered(
    host: Host, spoil: Callable[[Host], None], cause: str
) -> None:
    """Who tries is told why, and it is usable in its other forms; where only this GPU is concerned, others are offered as before."""
    backend = host.process()
    spoil(host)
    assert backend.read(GPU).passthrough is None
    of_all = None if spoil is unload_the_module else Passthrough.POSSIBLE
    assert backend.read(OTHER).passthrough is of_all
    with pytest.raises(VendorError, match=cause):
        backend.partition(BIND)
    assert host.writes == []


@pytest.mark.parametrize("gone", ["class", "iommu_group/devices"])
def test_a_gpu_that_is_unplugged_under_our_eyes_is_a_vendor_error(host: Host, gone: str) -> None:
    """What sysfs showed a moment ago may not be there any more; whoever looks again sees it."""
    host.process()
    (host.device(GPU) / "iommu_group/devices/0000:1a:01.0").symlink_to(host.device("0000:1a:01.0"))
    if gone == "class":
        host.device("0000:1a:01.0").mkdir()
    else:
        shutil.rmtree(host.device(GPU) / gone)
    with pytest.raises(VendorError, match="cannot be read: No such file") as unplugged:
        Vfio(host.sys).functions(GPU)
    assert unplugged.value.retryable


def test_a_function_that_is_not_there_has_no_driver(host: Host) -> None:
    """Nor has one between two drivers, whose link leads nowhere for a moment."""
    host.process()
    assert Vfio(host.sys).driver_of("0000:ff:00.0") is None
    (host.device(GPU) / "driver").unlink()
    assert Vfio(host.sys).driver_of(GPU) is None


def test_a_bridge_in_the_group_does_no_harm(host: Host) -> None:
    """The kernel keeps bridges out of the machine's way by itself."""
    backend = host.process()
    bridge = host.device("0000:1a:01.0")
    bridge.mkdir()
    (bridge / "class").write_text("0x060400\n")
    (host.device(GPU) / "iommu_group/devices" / bridge.name).symlink_to(bridge)
    assert backend.read(GPU).passthrough is Passthrough.POSSIBLE


def test_the_claims_gpu_taken_by_somebody_else_is_not_given_out(host: Host) -> None:
    """Whoever binds it to another driver behind our back is noticed when the claim is looked at."""
    backend = host.process()
    backend.partition(BIND)
    Vfio(host.sys, SimulatedBus(host.sys, (), "nvidia").write).give_back(NATIVE)
    with pytest.raises(VendorError, match=r"is with nvidia and not with vfio-pci"):
        backend.identify(Target(gpu=GPU, passthrough=True))


@pytest.mark.parametrize("refused", [AUDIO, GPU])
def test_only_the_gpu_s_own_driver_is_waited_for(host: Host, refused: str) -> None:
    """A claim is not held up by a sound card that its driver does not take back; a GPU that is with nobody is no success."""
    backend = host.process()
    backend.partition(BIND)
    (host.device(refused) / "modalias").write_text("changed\n")
    with capture_logs() as logs, nullcontext() if refused == AUDIO else pytest.raises(VendorError):
        backend.partition(UNBIND)
    assert host.drivers()[refused] is None
    assert [AUDIO in one["why"] for one in logs] == [True] * (refused == AUDIO)
    assert backend.read(GPU).passthrough is (
        Passthrough.POSSIBLE if refused == AUDIO else Passthrough.BOUND
    )


def test_a_refusal_of_the_kernel_names_the_file(host: Host) -> None:
    """As does one of a file that is not there: no file is made in sysfs."""
    backend = host.process()
    (host.device(AUDIO) / "driver_override").unlink()
    with pytest.raises(VendorError, match=r"driver_override: the kernel refused 'vfio-pci'"):
        backend.partition(BIND)
    with pytest.raises(FileNotFoundError) as missing:
        write_file(host.sys / "nowhere", "x")
    assert missing.value.errno == errno.ENOENT
    backend.partition(UNBIND)
    assert host.drivers() == NATIVE
