"""The checker sees each invariant broken, on a node whose files, hardware and slices are real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from dra_driver.cdi.folder import CdiFolder
from dra_driver.config.machine import Machine
from dra_driver.journal.store import ClaimJournal, read_boot_id
from dra_driver.kube.codec import slice_to_json
from dra_driver.model.claim import ClaimRef
from dra_driver.model.device import CreateStage, DestroyStage, Placement, Target
from dra_driver.model.edits import ContainerEdits
from dra_driver.model.names import cdi_device_id, cdi_device_name
from dra_driver.model.record import ClaimRecord, Grant, Preparation, PreparedDevice, Step
from dra_driver.ports import Backend, JsonObject
from dra_driver.rules.forms import made_instances
from dra_driver.rules.publish import PublishMode, desired_pool
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.vendors.nvidia.simulated_smi import create
from tests.faults.invariants import DEVICES_PER_GPU, violations
from tests.faults.ledger import Ledger, Told
from tests.faults.outside import Outside, look

GPU, NAME = "0000:1b:00.0", "gpu-0000-1b-00-0"
HELD, OTHER = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
EDITS = ContainerEdits(env=(("A", "b"),))


@dataclass
class World:
    """A node on which one claim holds a partition, beside an instance that is somebody else's."""

    folder: Path
    backend: Backend
    node: str = "n"
    ledger: Ledger = field(default_factory=Ledger)
    slices: list[JsonObject] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.data_dir, self.cdi_dir = self.folder / "data", self.folder / "cdi"
        self.journal = ClaimJournal(self.data_dir / "claims", boot_id=read_boot_id())
        self.journal_file = self.data_dir / "claims" / read_boot_id() / f"{HELD}.jsonl"
        self.cdi = CdiFolder(self.cdi_dir)
        self.data_dir.mkdir()
        self.ledger.foreign = tuple((GPU, i) for i in self.backend.read(GPU).instances)
        self.hold()

    def record(self, uid: str, grant: Grant, *stages: str) -> ClaimRecord:
        """The intent of a claim with one device."""
        assert not stages or grant.placement is not None
        steps = tuple(
            Step(
                device=grant.device,
                change=CreateStage(
                    gpu=GPU, profile=str(grant.profile), placement=grant.placement, stage=stage
                ),
            )
            for stage in stages
            if grant.placement is not None
        )
        ref = ClaimRef(namespace="default", name="c", uid=uid)
        return ClaimRecord(
            claim=ref, boot_id=read_boot_id(), owner="o", grants=(grant,), steps=steps
        )

    def hold(self) -> None:
        """Do what a plugin does for the claim, and tell the kubelet."""
        record = self.record(HELD, PARTITION, "gpu-instance", "compute-instance")
        self.journal.begin(record)
        identity = create(self.backend, GPU, "1g.10gb", 6)
        for made in (identity.partition("/")[0], identity):
            self.journal.step(HELD, made)
        cdi_id = cdi_device_id(HELD, PARTITION.device, None)
        device = PreparedDevice(
            requests=("r",),
            pool=PARTITION.pool,
            device=PARTITION.device,
            cdi_ids=(cdi_id,),
            hardware=self.backend.identify(Target(gpu=GPU, instance=identity)),
        )
        edits = (cdi_device_name(HELD, PARTITION.device, None), EDITS)
        self.cdi.write(HELD, [edits])
        self.journal.finish(HELD, Preparation(devices=(device,), edits=(edits,)))
        self.ledger.prepared(HELD, [Told(PARTITION.pool, PARTITION.device, (cdi_id,))])
        self.slices = self.published()
        self.ledger.remember(self.outside())

    def published(self) -> list[JsonObject]:
        """Everything that the hardware can become."""
        made = made_instances(self.journal.records().values())
        found = discover(self.backend)
        pool = desired_pool(self.node, found, made, PublishMode.FULL, DEVICES_PER_GPU)
        return [slice_to_json(item) for item in pool.slices]

    def outside(self) -> Outside:
        """A look."""
        return look(self, slices=self.slices)

    def broken(self) -> set[str]:
        """The invariants that do not hold."""
        return {one.invariant for one in violations(self.outside(), self.ledger, settled=True)}

    def destroy(self, start: int) -> None:
        """Destroy the instance that starts there."""
        instances = self.backend.read(GPU).instances
        found = next(one for one in instances if one.placement.start == start)
        for identity in (found.identity, found.identity.partition("/")[0]):
            stage = "compute-instance" if "/" in identity else "gpu-instance"
            made = CreateStage(
                gpu=GPU, profile=found.profile, placement=found.placement, stage=stage
            )
            self.backend.partition(DestroyStage(created=made, identity=identity))


PARTITION = Grant(
    device=f"{NAME}-mig-1g-10gb-6",
    pool="n/nvidia",
    requests=("r",),
    gpu=GPU,
    profile="1g.10gb",
    placement=Placement(start=6, size=1),
)
WHOLE = Grant(device=NAME, pool="n/nvidia", requests=("r",), gpu=GPU)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Nothing is wrong in it."""
    spec = {
        "vendor": "nvidia",
        "model": "H100-SXM5-80GB",
        "mode": "mig",
        "instances": [{"profile": "1g.10gb", "start": 0}],
    }
    header = {"apiVersion": "gpu.dra-driver.dev/v1alpha1", "kind": "Machine", "name": "m"}
    machine = Machine.model_validate(header | {"gpus": [spec]})
    nvml = SimulatedNvml(machine, node="n", state_dir=tmp_path / "hardware")
    world = World(tmp_path, NvidiaBackend(nvml))
    assert world.broken() == set()
    return world


def _grant_twice(world: World) -> None:
    world.journal.begin(world.record(OTHER, WHOLE))


def _lose_cdi_file(world: World) -> None:
    world.cdi.remove(HELD)


def _release_without_a_word(world: World) -> None:
    world.journal.releasing(HELD)


def _destroy_ours(world: World) -> None:
    world.destroy(6)


def _leave_cdi_file(world: World) -> None:
    world.cdi.write(OTHER, [("x", EDITS)])


def _leave_instance(world: World) -> None:
    create(world.backend, GPU, "1g.10gb", 3)


def _leave_draft(world: World) -> None:
    (world.cdi_dir / ".gpu.dra-driver.dev-claim_x.draft").touch()


def _leave_half_done(world: World) -> None:
    monitor = replace(WHOLE, device=f"{NAME}-monitor", monitor=True)
    world.journal.begin(world.record(OTHER, monitor))


def _keep_what_was_released(world: World) -> None:
    world.ledger.asked_to_unprepare(HELD)
    world.ledger.unprepared(HELD)


def _destroy_theirs(world: World) -> None:
    world.destroy(0)


def _lose_slice(world: World) -> None:
    world.slices.pop()


def _lose_device(world: World) -> None:
    world.slices[-1]["spec"]["devices"].pop()


def _rewrite_record(world: World) -> None:
    data = world.journal_file.read_bytes()
    newline = data.index(b"\n") + 1
    world.journal.forget(HELD)
    world.journal.begin(world.record(HELD, WHOLE))
    assert world.journal_file.read_bytes()[:newline] != data[:newline]


def _refuse_for_no_reason(world: World) -> None:
    world.ledger.asked_to_prepare(HELD)
    world.ledger.refuses(HELD, "HardwareError: another GPU hangs")


def _forget_record(world: World) -> None:
    world.journal_file.unlink()


def _damage_record(world: World) -> None:
    data = bytearray(world.journal_file.read_bytes())
    data[100] ^= 1
    world.journal_file.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "invariants"),
    [
        (_grant_twice, {"I1", "I3"}),
        (_lose_cdi_file, {"I2"}),
        (_release_without_a_word, {"I2", "I3"}),
        (_destroy_ours, {"I2"}),
        (_leave_cdi_file, {"I3"}),
        (_leave_instance, {"I3", "I5"}),
        (_leave_draft, {"I3"}),
        (_leave_half_done, {"I3"}),
        (_keep_what_was_released, {"I4"}),
        (_destroy_theirs, {"I4", "I5"}),
        (_lose_slice, {"I5"}),
        (_lose_device, {"I5"}),
        (_rewrite_record, {"I2", "I3", "I5", "I6"}),
        (_refuse_for_no_reason, {"I7"}),
        (_forget_record, {"I2", "I3", "I5", "I8"}),
        (_damage_record, {"I2", "I5", "I6", "I8"}),
    ],
)
def test_each_harm_is_seen(
    world: World, harm: Callable[[World], None], invariants: set[str]
) -> None:
    """Exactly the invariants that it breaks are reported: no harm passes, and none is blamed for another."""
    harm(world)
    assert world.broken() == invariants


@pytest.mark.parametrize(
    ("profile", "placement", "is_double"),
    [
        ("1c.3g.40gb", Placement(0, 4, 2), False),
        ("1c.3g.40gb", Placement(0, 4, 1), True),
        ("2c.3g.40gb", Placement(0, 4, 1), True),
        ("3g.40gb", Placement(0, 4), True),
        ("1g.10gb", Placement(3, 1), True),
        ("1g.10gb", Placement(4, 1), False),
    ],
)
def test_parts_of_one_partition_exclude_everything_but_each_other(
    world: World, profile: str, placement: Placement, *, is_double: bool
) -> None:
    """Two claims with a part each share the partition; one part is one claim's, and what overlaps the partition is nobody's."""
    part = replace(PARTITION, profile="1c.3g.40gb", placement=Placement(0, 4, 1))
    other = replace(PARTITION, profile=profile, placement=placement)
    for number, grant in enumerate((part, other), 2):
        world.journal.begin(world.record(f"00000000-0000-0000-0000-00000000000{number}", grant))
    assert ("I1" in world.broken()) is is_double
