from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from dra_driver.journal.store import ClaimJournal
from dra_driver.model.claim import ClaimRef
from dra_driver.model.device import CreateStage, Placement, SetMode
from dra_driver.model.edits import ContainerEdits, DeviceNode, Mount
from dra_driver.model.record import ClaimRecord, Grant, Preparation, PreparedDevice, Step

BOOT = "0b0e0f3c-7a8b-4c1d-9e2f-3a4b5c6d7e8f"
GPU = "0000:3b:00.0"
DEVICE = "gpu-0000-3b-00-0-mig-1g-10gb-6"

NewRecord: TypeAlias = Callable[[int], ClaimRecord]
FileOf: TypeAlias = Callable[[ClaimRecord], Path]


@pytest.fixture
def journal(tmp_path: Path) -> ClaimJournal:
    """An empty journal on disk."""
    return ClaimJournal(tmp_path / "journal", boot_id=BOOT)


@pytest.fixture
def file_of(tmp_path: Path) -> FileOf:
    """Finds the file of a claim in that journal."""
    return lambda record: tmp_path / "journal" / BOOT / f"{record.claim.uid}.jsonl"


@pytest.fixture
def new_record() -> NewRecord:
    """Makes the record of a claim, by number, that is granted a partition and needs two steps."""

    def make(number: int) -> ClaimRecord:
        uid = f"00000000-0000-4000-8000-{number:012x}"
        placement = Placement(6, 1)
        grant = Grant(
            device=DEVICE,
            pool="n1/nvidia",
            requests=("gpu",),
            gpu=GPU,
            profile="1g.10gb",
            placement=placement,
        )
        create = CreateStage(gpu=GPU, profile="1g.10gb", placement=placement, stage="gpu-instance")
        return ClaimRecord(
            claim=ClaimRef(namespace="ml", name=f"claim-{number}", uid=uid),
            boot_id=BOOT,
            owner="plugin-a",
            grants=(grant,),
            steps=(
                Step(device=DEVICE, change=SetMode(gpu=GPU, mode="mig")),
                Step(device=DEVICE, change=create),
            ),
        )

    return make


@pytest.fixture
def record(new_record: NewRecord) -> ClaimRecord:
    """One such record."""
    return new_record(1)


@pytest.fixture
def preparation() -> Preparation:
    """The outcome for it."""
    edits = ContainerEdits(
        env=(("NVIDIA_VISIBLE_DEVICES", "void"),),
        device_nodes=(DeviceNode(path="/dev/nvidia0"), DeviceNode(path="/dev/a", host_path="/b")),
        mounts=(Mount(host_path="/usr/lib/libcuda.so.1", container_path="/usr/lib/libcuda.so.1"),),
    )
    device = PreparedDevice(
        requests=("gpu",),
        pool="n1/nvidia",
        device=DEVICE,
        cdi_ids=("gpu.dra-driver.dev/claim=x",),
        hardware=("GPU-1", "MIG-1"),
    )
    return Preparation(devices=(device,), edits=(("x", edits),))
