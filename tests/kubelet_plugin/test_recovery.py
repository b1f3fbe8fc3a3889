"""One claim's trouble at the start is that claim's alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.config.machine import Machine
from dra_driver.model.errors import VendorError
from dra_driver.vendors.nvidia.nvml import Code, NvmlError
from tests.kubelet_plugin.conftest import CountingApi, NewClaim, NodePlugin, ref

WHOLE, OTHER = "gpu-0000-1b-00-0", "gpu-0000-43-00-0"
SMALL = "gpu-0000-1b-00-0-mig-1g-10gb-6"


async def test_a_cdi_file_that_cannot_be_read_stops_nobody_else(
    node: NodePlugin, new_claim: NewClaim, machine: Machine, api: CountingApi, tmp_path: Path
) -> None:
    """The plugin starts, and other claims are given back."""
    broken, sound = new_claim(WHOLE), new_claim(OTHER)
    await node.prepare(broken)
    await node.prepare(sound)
    uid = broken["metadata"]["uid"]
    file = next(path for path in (tmp_path / "cdi").iterdir() if uid in path.name)
    file.unlink()
    file.mkdir()
    again = await NodePlugin(tmp_path, machine, api).start()
    await again.unprepare(sound)


async def test_a_driver_that_is_not_loaded_any_more_is_named(
    node: NodePlugin, new_claim: NewClaim, machine: Machine, api: CountingApi, tmp_path: Path
) -> None:
    """The plugin starts without it; the claim's instance waits on record until the driver is back."""
    claim = new_claim(SMALL)
    await node.prepare(claim)
    again = NodePlugin(tmp_path, machine, api)
    again.backends = {}
    await again.start()
    with pytest.raises(VendorError, match="driver is not loaded any more"):
        await again.unprepare(claim)
    assert list(again.state.records) == [ref(claim).uid]


async def test_a_gpu_that_is_gone_took_its_instances_along(
    node: NodePlugin, new_claim: NewClaim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pods can end: there is nothing left to destroy."""
    claim = new_claim(SMALL)
    await node.prepare(claim)

    def gone(address: str) -> object:
        raise NvmlError(Code.NOT_FOUND, f"nvmlDeviceGetHandleByPciBusId {address}")

    monkeypatch.setattr(node.nvml, "gpu_by_address", gone)
    await node.unprepare(claim)
    assert not node.state.records
