"""Device nodes of simulated hardware."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dra_driver.config.machine import load_machine
from dra_driver.model.device import Target
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.null_devices import NullDevices
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml


def test_every_node_is_there_and_harmless(tmp_path: Path) -> None:
    """A runtime finds each device node on the host; as root it is a null device, and asking twice changes nothing."""
    nvml = SimulatedNvml(load_machine("8xh100-80"), node="n", state_dir=tmp_path / "nvidia")
    plain = NvidiaBackend(nvml)
    backend = NullDevices(plain, tmp_path)
    target = Target(gpu=discover(plain).gpus[0].pci_address)
    edits = backend.edits(target)
    assert edits == backend.edits(target)
    expected = [node.path for node in plain.edits(target).device_nodes]
    assert [node.path for node in edits.device_nodes] == expected
    for node in edits.device_nodes:
        assert node.host_path == f"{tmp_path}{node.path}"
        found = Path(node.host_path).stat()
        if os.geteuid() == 0:
            assert stat.S_ISCHR(found.st_mode)
            assert found.st_rdev == os.makedev(1, 3)


def test_gpus_that_share_a_node_may_ask_at_the_same_time(tmp_path: Path) -> None:
    """Each GPU has a thread of its own, and /dev/nvidiactl belongs to all of them."""
    nvml = SimulatedNvml(load_machine("8xh100-80"), node="n", state_dir=tmp_path / "nvidia")
    plain = NvidiaBackend(nvml)
    target = Target(gpu=discover(plain).gpus[0].pci_address)
    for number in range(50):
        backend = NullDevices(plain, tmp_path / str(number))
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(backend.edits, [target] * 4))
        assert answers == [answers[0]] * 4
