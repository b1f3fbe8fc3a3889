"""Parts of MIG partitions: several claims on one partition, which is made for the first of them and goes with the last."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.config.machine import Machine
from dra_driver.kube.codec import allocated_claim_from_json
from dra_driver.model.device import CreateStage, DestroyStage, Placement, SetMode
from dra_driver.model.errors import ClaimError, DeviceHeld, VendorError
from dra_driver.vendors.nvidia import simulated_smi
from kubelet_plugin.planner import Snapshot, plan_prepare
from kubelet_plugin.rehearsal import Rehearsal, as_text
from tests.kubelet_plugin.conftest import NODE, CountingApi, NewClaim, NodePlugin, machine_of, ref
from tests.vendors.faults import set_faults

ADDRESS = "0000:1b:00.0"
GPU = "gpu-0000-1b-00-0"
PARTS = [f"{GPU}-mig-1c-3g-40gb-4-{part}" for part in range(3)]
SPLITS = ("1c.2g.10gb", "1c.3g.40gb")


@pytest.fixture
async def node(tmp_path: Path, machine: Machine, api: CountingApi) -> NodePlugin:
    """A plugin that offers parts of 3g.40gb partitions; the other profile is another board's."""
    return await NodePlugin(tmp_path, machine, api, splits=SPLITS).start()


async def restarted(node: NodePlugin, splits: tuple[str, ...] = SPLITS) -> NodePlugin:
    """The next process, over what this one left."""
    machine = machine_of("H100-SXM5-80GB")
    return await NodePlugin(node.folder, machine, node.api, splits=splits).start()


def there(node: NodePlugin) -> list[tuple[str, int]]:
    """Profile and part of every instance; the partition itself is the first of them."""
    return [(i.profile, i.placement.part) for g in node.inventory().gpus for i in g.instances]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
async def test_the_partition_goes_with_its_last_part(
    node: NodePlugin, new_claim: NewClaim, order: tuple[int, ...]
) -> None:
    """Three claims with a part each, which leave in any order, through a restart: the others keep what they have."""
    claims = [new_claim(part) for part in PARTS]
    for claim in claims:
        await node.prepare(claim)
    assert there(node) == [("3g.40gb", 0), *(("1c.3g.40gb", part) for part in range(3))]
    uuids = {instance.uuid for gpu in node.inventory().gpus for instance in gpu.instances}
    assert len(uuids - {""}) == 3
    left = {0, 1, 2}
    for part in order:
        await node.unprepare(claims[part])
        left -= {part}
        node = await restarted(node)
        assert there(node) == ([("3g.40gb", 0)] if left else []) + [
            ("1c.3g.40gb", one) for one in sorted(left)
        ]
        for one in left:
            await node.prepare(claims[one])
    assert node.leftovers() == []


async def test_one_claim_may_have_several_parts(node: NodePlugin, new_claim: NewClaim) -> None:
    """Each with a variable of its own in the container; given back together."""
    claim = new_claim(*PARTS[:2])
    await node.prepare(claim)
    (preparation,) = (one.preparation for one in node.state.records.values())
    assert preparation is not None
    told = [dict(edits.env) for _, edits in preparation.edits]
    names = [{name for name in one if name.startswith("DRA_DEVICE")} for one in told]
    assert names == [{"DRA_DEVICE_0000_1B_00_0_MIG_4"}, {"DRA_DEVICE_0000_1B_00_0_MIG_4_1"}]
    await node.unprepare(claim)
    assert node.leftovers() == []


@pytest.mark.parametrize("other", [GPU, f"{GPU}-mig-3g-40gb-4", f"{GPU}-mig-1g-10gb-5", PARTS[0]])
async def test_what_overlaps_the_partition_is_held(
    node: NodePlugin, new_claim: NewClaim, other: str
) -> None:
    """Whatever the scheduler says: by one part as by all. Beside the partition there is room."""
    await node.prepare(new_claim(PARTS[0]))
    with pytest.raises(DeviceHeld):
        await node.prepare(new_claim(other), deadline=0.0)
    await node.prepare(new_claim(f"{GPU}-mig-4g-40gb-0"))


async def test_a_part_that_fails_leaves_the_others_alone(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """The partition of others stays; without others it is undone with the part."""
    failing = {ADDRESS: {"error": "UNKNOWN", "calls": ["create_compute_instance"]}}
    set_faults(node.folder / "hardware", failing)
    with pytest.raises(Exception, match="UNKNOWN"):
        await node.prepare(new_claim(PARTS[0]))
    assert there(node) == []
    set_faults(node.folder / "hardware", {})
    await node.prepare(new_claim(PARTS[1]))
    set_faults(node.folder / "hardware", failing)
    with pytest.raises(Exception, match="UNKNOWN"):
        await node.prepare(new_claim(PARTS[0]))
    assert there(node) == [("3g.40gb", 0), ("1c.3g.40gb", 1)]


async def test_parts_are_kept_and_released_after_the_setting_is_gone(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """A plugin that offers none any more answers for those that claims have, and takes them back."""
    claim = new_claim(PARTS[2])
    told = await node.prepare(claim)
    after = await restarted(node, splits=())
    assert await after.prepare(claim) == told
    await after.unprepare(claim)
    assert after.leftovers() == []


async def test_a_partition_that_somebody_else_made_is_not_split(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """Seen or not: it is never a place for our parts, and never destroyed."""
    node.backend.partition(SetMode(gpu=ADDRESS, mode="mig"))
    await node.node.survey.look()
    simulated_smi.create(node.backend, ADDRESS, "3g.40gb", 4)
    claim = new_claim(PARTS[0])
    with pytest.raises(Exception, match="INSUFFICIENT_RESOURCES"):
        await node.prepare(claim)
    with pytest.raises(ClaimError, match="was made by somebody else"):
        await node.prepare(claim)
    assert there(node) == [("3g.40gb", 0)]
    assert ref(claim).uid not in node.state.records


async def test_a_plan_says_which_part_and_whose_partition(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """The first part makes the partition, the second is put into it."""
    new = new_claim(*PARTS[:2])
    record = plan_prepare(
        Snapshot(
            claim=allocated_claim_from_json(new),
            node=NODE,
            inventories=node.state.inventories,
            boot_id="boot",
            owner="test",
        )
    )
    described = as_text(
        Rehearsal(claim=ref(new), node=NODE, outcome="Prepare", grants=(), steps=record.steps)
    )
    at = "of 1c.3g.40gb at 4"
    assert f"create the compute-instance {at}\n" in described
    assert "share the gpu-instance of 3g.40gb at 4\n" in described
    assert described.endswith(f"create the compute-instance {at}, part 1")


def whole(start: int = 4) -> CreateStage:
    """The partition itself."""
    place = Placement(start, 4)
    return CreateStage(gpu=ADDRESS, profile="3g.40gb", placement=place, stage="gpu-instance")


def part(number: int, of: str) -> CreateStage:
    """A part of the GPU instance of that identity."""
    place = Placement(4, 4, number)
    return CreateStage(
        gpu=ADDRESS, profile="1c.3g.40gb", placement=place, stage="compute-instance", parent=of
    )


async def test_a_part_that_somebody_else_made_in_our_partition_outlives_our_claim(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """The claim ends all the same; the partition is theirs from then on."""
    claim = new_claim(PARTS[0])
    await node.prepare(claim)
    node.backend.partition(part(2, "gi-1"))
    await node.unprepare(claim)
    await node.node.survey.look()
    assert there(node) == [("3g.40gb", 0), ("1c.3g.40gb", 2)]
    assert not node.state.records


async def test_no_part_is_made_in_a_partition_that_took_the_place_of_ours(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """An administrator's own, at the same place, by another number: refused, and not destroyed with our claims."""
    first, second = new_claim(PARTS[0]), new_claim(PARTS[1])
    await node.prepare(first)
    node.backend.partition(DestroyStage(created=part(0, "gi-1"), identity="gi-1/ci-0"))
    node.backend.partition(DestroyStage(created=whole(), identity="gi-1"))
    simulated_smi.create(node.backend, ADDRESS, "1g.10gb", 0)
    assert node.backend.partition(whole()) == "gi-2"
    await node.node.survey.look()
    with pytest.raises(VendorError, match="delete their pods"):
        await node.prepare(second, deadline=0.0)
    await node.unprepare(first)
    await node.unprepare(second)
    await node.node.survey.look()
    assert ("3g.40gb", 0) in there(node)
