"""Broken AMD hardware: files that hang or fail, GPUs and drivers that go away."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dra_driver.model.device import Target
from dra_driver.model.errors import VendorError
from dra_driver.vendors.amd.backend import AmdBackend
from dra_driver.vendors.amd.simulated_faults import SimulatedSysfs
from dra_driver.vendors.discovery import discover
from tests.vendors.faults import set_faults

FIRST, SECOND = "0000:05:00.0", "0000:26:00.0"


@pytest.fixture
def backend(tree: Path) -> AmdBackend:
    return AmdBackend(SimulatedSysfs(tree))


def test_an_unplugged_gpu_is_gone_until_it_is_plugged_in(tree: Path, backend: AmdBackend) -> None:
    """The other keeps all that is said of it, its index too; afterwards all is as before."""
    before = discover(backend)
    set_faults(tree, {FIRST: {"absent": True}})
    assert discover(backend).gpus == before.gpus[1:]
    for ask in (backend.read, lambda gpu: backend.identify(Target(gpu=gpu))):
        with pytest.raises(VendorError, match=f"{FIRST} is not bound") as refused:
            ask(FIRST)
        assert refused.value.retryable
    set_faults(tree, {})
    assert discover(backend) == before


def test_a_file_that_fails_is_a_fault_of_its_gpu(tree: Path, backend: AmdBackend) -> None:
    """As a missing file is; one that need not be there hides nothing."""
    set_faults(tree, {FIRST: {"error": "EIO", "calls": ["mem_info_vram_total"]}})
    found = discover(backend)
    assert [gpu.pci_address for gpu in found.gpus] == [SECOND]
    assert "reports no memory" in found.faults[0].message
    set_faults(tree, {FIRST: {"error": "EIO", "calls": ["product_name"]}})
    assert backend.read(FIRST).product_name == "AMD GPU 1002:74a1"


def test_a_file_that_hangs_delays_no_other_gpu(tree: Path, backend: AmdBackend) -> None:
    """The list and the other GPU answer meanwhile; healed, the first one does too."""
    set_faults(tree, {FIRST: {"hang_s": 3600}})
    with ThreadPoolExecutor(1) as thread:
        hanging = thread.submit(backend.read, FIRST)
        try:
            assert backend.addresses() == (FIRST, SECOND)
            assert backend.read(SECOND).index == 1
            assert not hanging.done()
        finally:
            set_faults(tree, {})
        assert hanging.result(timeout=30).index == 0


def test_a_reloaded_driver_is_seen_without_a_restart(tree: Path, backend: AmdBackend) -> None:
    """While it is away that is an error to retry, not an empty node; its new version is read from the next look on."""
    before = backend.read(FIRST)
    gone: dict[str, object] = {"absent": True}
    failing: dict[str, object] = {"error": "EIO"}
    for fault, words in [(gone, "not loaded"), (failing, "fails with EIO")]:
        set_faults(tree, {"driver": fault})
        with pytest.raises(VendorError, match=words) as refused:
            backend.addresses()
        assert refused.value.retryable
    set_faults(tree, {"driver": {"version": "6.14.1"}})
    assert before.driver_version != backend.read(FIRST).driver_version == "6.14.1"


def test_what_means_nothing_is_named(tree: Path, backend: AmdBackend) -> None:
    """The file, the value and what would be possible."""
    set_faults(tree, {FIRST: {"calls": ["mem_info"]}})
    with pytest.raises(VendorError, match=r"faults\.json.*'mem_info' is not one of.*mem_info_vram"):
        backend.addresses()
