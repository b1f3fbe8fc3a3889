from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.config.machine import GpuSpec, Machine
from dra_driver.model.device import Vendor
from dra_driver.vendors.amd.backend import AmdBackend
from dra_driver.vendors.amd.sdk import Sysfs
from dra_driver.vendors.amd.simulated import build_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A simulated /sys with two whole MI300X, at 0000:05:00.0 and 0000:26:00.0."""
    machine = Machine(
        api_version="gpu.dra-driver.dev/v1alpha1",
        kind="Machine",
        name="test",
        gpus=(GpuSpec(vendor=Vendor.AMD, model="MI300X", count=2),),
    )
    return build_tree(machine, tmp_path / "sys", node="node-a")


@pytest.fixture
def backend(tree: Path) -> AmdBackend:
    return AmdBackend(Sysfs(tree))
