"""Which hardware a plugin has on a node, as its settings say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dra_driver.config.settings import PluginSettings
from dra_driver.model.device import BindPassthrough, Passthrough, UnbindPassthrough
from dra_driver.model.errors import VendorError
from dra_driver.ports import Backend
from dra_driver.vendors.discovery import discover
from kubelet_plugin.hardware import open_backends

GPU = "0000:1b:00.0"


def opened(folder: Path, passthrough: str) -> Backend:
    """The backend of eight simulated H100s, as a plugin that starts now opens it."""
    settings = {
        "nodeName": "n",
        "machine": "8xh100-80",
        "simulationDir": str(folder / "simulation"),
        "dataDir": str(folder / "data"),
        "passthrough": passthrough,
    }
    (backend,) = open_backends(PluginSettings.model_validate(settings)).values()
    return backend


def offered(backend: Backend) -> set[Passthrough | None]:
    """What virtual machines are offered of all its GPUs."""
    return {gpu.passthrough for gpu in discover(backend).gpus}


def test_virtual_machines_are_offered_gpus_where_the_settings_say_so(tmp_path: Path) -> None:
    """Not before, nor afterwards; a GPU that is away then is known, comes back, and is not lost over a restart."""
    assert offered(opened(tmp_path, "refuse")) == {None}
    backend = opened(tmp_path, "offer")
    assert offered(backend) == {Passthrough.POSSIBLE}
    backend.partition(BindPassthrough(gpu=GPU))
    later = opened(tmp_path, "refuse")
    assert len(later.addresses()) == 8
    assert offered(later) == {None, Passthrough.BOUND}
    later.partition(UnbindPassthrough(gpu=GPU))
    assert offered(later) == {None}


def test_a_busy_simulated_gpu_does_not_go(tmp_path: Path) -> None:
    """As one that a process has open; the sandbox can play it."""
    backend = opened(tmp_path, "offer")
    faults = tmp_path / "simulation/nvidia/faults.json"
    faults.write_text(json.dumps({GPU: {"busy": True}}))
    with pytest.raises(VendorError, match="is in use by a simulated process"):
        backend.partition(BindPassthrough(gpu=GPU))
