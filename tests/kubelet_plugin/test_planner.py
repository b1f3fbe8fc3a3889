"""Decisions about claims, from values to values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dra_driver.config.machine import Machine
from dra_driver.model.claim import AllocatedClaim
from dra_driver.model.device import (
    BindPassthrough,
    CreateStage,
    DestroyStage,
    Passthrough,
    SetMode,
    UnbindPassthrough,
)
from dra_driver.model.errors import ClaimError, DeviceHeld, ParametersError
from dra_driver.model.record import ClaimRecord
from dra_driver.ports import JsonObject
from kubelet_plugin.footprint import plan_release
from kubelet_plugin.planner import Snapshot, plan_prepare
from tests.kubelet_plugin.conftest import (
    BOOT,
    NODE,
    POOL,
    CountingApi,
    NewClaim,
    NodePlugin,
    machine_of,
)

WHOLE = "gpu-0000-1b-00-0"
SMALL = "gpu-0000-1b-00-0-mig-1g-10gb-6"
BESIDE = "gpu-0000-1b-00-0-mig-1g-10gb-5"
LARGE = "gpu-0000-1b-00-0-mig-3g-40gb-4"
OTHER = "gpu-0000-43-00-0"
MONITOR = "gpu-0000-1b-00-0-monitor"
MACHINE = "gpu-0000-1b-00-0-vfio"
BIND, UNBIND = BindPassthrough(gpu="0000:1b:00.0"), UnbindPassthrough(gpu="0000:1b:00.0")

Decide = Callable[..., ClaimRecord]


@pytest.fixture
def decide(
    tmp_path: Path, machine: Machine, decode: Callable[[JsonObject], AllocatedClaim]
) -> Decide:
    """Plans a claim on the machine, given what other claims hold."""
    plugin = NodePlugin(tmp_path, machine, CountingApi())

    def plan(
        claim: JsonObject,
        *held: ClaimRecord,
        mode: str | None = None,
        passthrough: Passthrough | None = None,
    ) -> ClaimRecord:
        inventory = plugin.inventory()
        inventory = replace(
            inventory,
            gpus=tuple(replace(gpu, passthrough=passthrough) for gpu in inventory.gpus),
        )
        if mode is not None:
            gpus = tuple(
                replace(gpu, partitioning=replace(gpu.partitioning, mode=mode))
                for gpu in inventory.gpus
                if gpu.partitioning is not None
            )
            inventory = replace(inventory, gpus=gpus)
        snapshot = Snapshot(
            claim=decode(claim),
            node=NODE,
            inventories={POOL: inventory},
            records={record.claim.uid: record for record in held},
            boot_id=BOOT,
            owner="test",
        )
        return plan_prepare(snapshot)

    return plan


def admin(device: str) -> JsonObject:
    """A result with adminAccess."""
    return {
        "request": "r",
        "driver": "gpu.dra-driver.dev",
        "pool": POOL,
        "device": device,
        "adminAccess": True,
    }


def test_a_whole_gpu_needs_no_hardware_change(decide: Decide, new_claim: NewClaim) -> None:
    """In whole mode there is nothing to do but to write it down."""
    record = decide(new_claim(WHOLE))
    assert [(grant.device, grant.gpu, grant.profile) for grant in record.grants] == [
        (WHOLE, "0000:1b:00.0", None)
    ]
    assert record.steps == ()


def test_partitions_switch_the_mode_once_and_are_made_stage_by_stage(
    decide: Decide, new_claim: NewClaim
) -> None:
    """One mode switch per GPU, then each partition's stages in order."""
    record = decide(new_claim(("a", SMALL), ("b", BESIDE)))
    changes = [step.change for step in record.steps]
    assert isinstance(changes[0], SetMode)
    assert [c.stage for c in changes[1:] if isinstance(c, CreateStage)] == [
        "gpu-instance",
        "compute-instance",
    ] * 2
    assert [step.device for step in record.steps] == [SMALL, SMALL, SMALL, BESIDE, BESIDE]


def test_the_mode_is_sticky(decide: Decide, new_claim: NewClaim) -> None:
    """In the right mode nothing is switched; a whole GPU switches back."""
    assert not any(
        isinstance(s.change, SetMode) for s in decide(new_claim(SMALL), mode="mig").steps
    )
    assert [s.change for s in decide(new_claim(WHOLE), mode="mig").steps] == [
        SetMode(gpu="0000:1b:00.0", mode="whole")
    ]


def test_other_drivers_and_pools_are_not_ours(decide: Decide, new_claim: NewClaim) -> None:
    """A claim may hold another driver's device, or one of another pool: they are left alone."""
    foreign = {"request": "x", "driver": "nic.example", "pool": POOL, "device": "nic"}
    elsewhere = {
        "request": "y",
        "driver": "gpu.dra-driver.dev",
        "pool": "other/nvidia",
        "device": WHOLE,
    }
    assert [grant.device for grant in decide(new_claim(foreign, elsewhere, WHOLE)).grants] == [
        WHOLE
    ]
    with pytest.raises(ClaimError, match=r"has no device of gpu\.dra-driver.dev on node n"):
        decide(new_claim(foreign, elsewhere))


def test_a_chosen_alternative_is_reported_by_its_main_request(
    decide: Decide, new_claim: NewClaim
) -> None:
    """The kubelet knows `gpu`, not `gpu/whole`."""
    assert decide(new_claim(("gpu/whole", WHOLE))).grants[0].requests == ("gpu",)


def test_what_cannot_be_served_is_named(decide: Decide, new_claim: NewClaim) -> None:
    """An unknown device and a claim without an allocation are refused by name."""
    with pytest.raises(
        ClaimError, match=r"device gpu-0000-99-00-0 of claim default/claim-1 is not on this node"
    ):
        decide(new_claim("gpu-0000-99-00-0"))
    claim = new_claim(WHOLE)
    del claim["status"]["allocation"]
    with pytest.raises(ClaimError, match="is not allocated"):
        decide(claim)


def test_parameters_are_checked_for_the_devices_they_concern(
    decide: Decide, new_claim: NewClaim
) -> None:
    """Unknown fields and a sharing that the device does not have are refused; entries for others are not read."""

    def entry(parameters: JsonObject, **more: object) -> JsonObject:
        opaque = {"driver": "gpu.dra-driver.dev", "parameters": parameters}
        return {"source": "FromClaim", "opaque": opaque} | more

    header = {"apiVersion": "gpu.dra-driver.dev/v1alpha1", "kind": "GpuConfig"}
    with pytest.raises(ParametersError, match=r"claim default/claim-1.*colour"):
        decide(new_claim(WHOLE, config=[entry(header | {"colour": "red"})]))
    with pytest.raises(ClaimError, match="TimeSlicing does not fit device gpu-0000-1b-00-0"):
        decide(new_claim(WHOLE, config=[entry(header | {"sharing": {"strategy": "TimeSlicing"}})]))
    decide(new_claim(WHOLE, config=[entry({"nonsense": 1}, requests=["another"])]))
    decide(new_claim(WHOLE, config=[entry(header | {"sharing": {"strategy": "Exclusive"}})]))


@pytest.mark.parametrize(
    ("held", "wanted", "collide"),
    [
        (WHOLE, WHOLE, True),
        (WHOLE, SMALL, True),
        (SMALL, WHOLE, True),
        (SMALL, LARGE, True),
        (SMALL, SMALL, True),
        (SMALL, BESIDE, False),
        (WHOLE, OTHER, False),
    ],
)
def test_no_two_claims_hold_the_same_hardware(
    decide: Decide, new_claim: NewClaim, held: str, wanted: str, collide: bool
) -> None:
    """Whatever overlaps is refused, with the holder named, even while that one is only half prepared."""
    holder = decide(new_claim(held))
    if collide:
        with pytest.raises(DeviceHeld, match=r"is held by claim default/claim-1"):
            decide(new_claim(wanted), holder)
    else:
        decide(new_claim(wanted), holder)


def test_admin_access_looks_and_never_changes(decide: Decide, new_claim: NewClaim) -> None:
    """Monitors are for adminAccess alone; they collide with nobody and change nothing."""
    holder = decide(new_claim(WHOLE))
    watcher = decide(new_claim(admin(MONITOR)), holder)
    assert watcher.steps == ()
    assert decide(new_claim(admin(WHOLE)), holder, mode="mig").steps == ()
    decide(new_claim(WHOLE), watcher)
    with pytest.raises(ClaimError, match="is for monitoring only"):
        decide(new_claim(MONITOR))


@pytest.mark.parametrize(
    "machine",
    [machine_of("H100-SXM5-80GB", 1, mode="mig", instances=[{"profile": "1g.10gb", "start": 6}])],
)
def test_somebody_elses_instance_is_used_as_it_is_or_not_at_all(
    decide: Decide, new_claim: NewClaim
) -> None:
    """An exact match is adopted without a step; what overlaps it is refused; beside it there is room."""
    adopted = decide(new_claim(SMALL))
    assert adopted.steps == ()
    assert plan_release(adopted, {}) == ()
    for wanted in (WHOLE, LARGE):
        with pytest.raises(
            ClaimError, match=r"instance gi-1/ci-0 \(1g.10gb\) .* was made by somebody else"
        ):
            decide(new_claim(wanted))
    assert len(decide(new_claim(BESIDE)).steps) == 2


def test_release_undoes_what_was_recorded_in_reverse(decide: Decide, new_claim: NewClaim) -> None:
    """Last made, first destroyed; the mode stays."""
    record = replace(decide(new_claim(SMALL)), identities=("whole", "gi-3", "gi-3/ci-0"))
    undo = plan_release(record, {})
    undone = [(c.created.stage, c.identity) for c in undo if isinstance(c, DestroyStage)]
    assert undone == [("compute-instance", "gi-3/ci-0"), ("gpu-instance", "gi-3")]


def offer(decide: Decide, claim: JsonObject, *held: ClaimRecord, **gpu: Any) -> ClaimRecord:
    """The plan where virtual machines may have the GPUs."""
    return decide(claim, *held, **{"passthrough": Passthrough.POSSIBLE, **gpu})


def test_a_virtual_machine_gets_a_whole_gpu_in_whole_mode(
    decide: Decide, new_claim: NewClaim
) -> None:
    """The mode first, then the GPU goes; given back is what went, or was about to go, and the mode stays."""
    record = offer(decide, new_claim(MACHINE), mode="mig")
    set_mode = SetMode(gpu="0000:1b:00.0", mode="whole")
    assert [step.change for step in record.steps] == [set_mode, BIND]
    assert plan_release(record, {}) == ()
    for identities in (("mig",), ("mig", "nvidia")):
        assert plan_release(replace(record, identities=identities), {}) == (UNBIND,)
    assert record.built_on == {"0000:1b:00.0": POOL}


def test_a_virtual_machine_has_its_gpu_alone(decide: Decide, new_claim: NewClaim) -> None:
    """In both directions, whatever the scheduler says; a monitor excludes nobody."""
    machines, whole = offer(decide, new_claim(MACHINE)), decide(new_claim(WHOLE))
    for wanted, held in ((WHOLE, machines), (SMALL, machines), (MACHINE, whole)):
        with pytest.raises(DeviceHeld):
            offer(decide, new_claim(wanted), held)
    assert offer(decide, new_claim(OTHER), machines).steps == ()


def test_a_virtual_machine_s_device_is_not_to_look_at(decide: Decide, new_claim: NewClaim) -> None:
    """With adminAccess nothing is changed, and an unchanged GPU has nothing for a virtual machine; its monitor is there to look."""
    for state in Passthrough:
        with pytest.raises(ClaimError, match="is for virtual machines"):
            offer(decide, new_claim(admin(MACHINE)), passthrough=state)


def test_a_gpu_that_nobody_s_machine_has_any_more_comes_back_first(
    decide: Decide, new_claim: NewClaim
) -> None:
    """Whoever left it with vfio-pci: the next claim for another form gets it back; it stays then."""
    record = offer(decide, new_claim(WHOLE), passthrough=Passthrough.BOUND)
    assert [step.change for step in record.steps] == [UNBIND]
    assert plan_release(replace(record, identities=("nvidia",)), {}) == ()
    with pytest.raises(
        ClaimError, match=r"GPU 0000:1b:00\.0 cannot be that \(any more\); delete the pod"
    ):
        decide(new_claim(MACHINE))
