"""A plugin whose NVML is a library in C on the host's file system, loaded by the process itself as it would the driver's."""

from __future__ import annotations

import shutil

import pytest

from dra_driver.config.machine import load_machine
from dra_driver.vendors.nvidia.simulated_gpu import simulated_gpus
from tests.process.conftest import NODE_NAME, Plugin
from tests.vendors.nvidia.driver_tree import build_nodes
from tests.vendors.nvidia.fake.machine import FakeHost


def put_on_library(plugin: Plugin) -> FakeHost:
    """The same machine that the plugin would have simulated, as a host with a driver; before the plugin starts."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed, and builds the fake libnvidia-ml.so.1")
    gpus = simulated_gpus(load_machine(plugin.settings.pop("machine")), NODE_NAME)
    host = FakeHost(plugin.folder / "host", gpus)
    (host.root / "proc/driver/nvidia").mkdir()
    (host.root / "proc/devices").write_text("Character devices:\n195 nvidia\n235 nvidia-caps\n")
    build_nodes(host.root, "/dev/nvidiactl", *(f"/dev/nvidia{gpu.index}" for gpu in gpus))
    plugin.settings["host-root"] = str(host.root)
    return host
