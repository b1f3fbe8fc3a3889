"""One claim's trouble at the start is that claim's alone."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from dra_driver.config.machine import Machine
from dra_driver.journal.quarantine import Quarantine
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


async def test_a_record_that_could_not_be_read_for_a_moment_is_no_damage(
    node: NodePlugin,
    new_claim: NewClaim,
    tmp_path: Path,
    machine: Machine,
    api: CountingApi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No descriptors were left at the start: the claim goes on with its next call."""
    claim = new_claim(WHOLE)
    first = await node.prepare(claim)

    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.suffix == ".jsonl":
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return read(path)

    again = NodePlugin(tmp_path, machine, api)
    with monkeypatch.context() as moment:
        moment.setattr(Path, "read_bytes", refuse)
        await again.start()
    assert await again.prepare(claim) == first
    await again.unprepare(claim)
    assert again.leftovers() == []


async def test_a_damaged_record_that_could_not_be_set_aside_is_mended_later(
    node: NodePlugin,
    new_claim: NewClaim,
    tmp_path: Path,
    machine: Machine,
    api: CountingApi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk was full at the start; when there is space, the claim can be given back."""
    claim = new_claim(WHOLE)
    await node.prepare(claim)
    (record,) = (tmp_path / "claims").glob("*/*.jsonl")
    record.write_bytes(b"x" + record.read_bytes()[1:])

    def refuse(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    again = NodePlugin(tmp_path, machine, api)
    with monkeypatch.context() as moment:
        moment.setattr(Quarantine, "take", refuse)
        await again.start()
    await again.unprepare(claim)
    assert not again.state.records
