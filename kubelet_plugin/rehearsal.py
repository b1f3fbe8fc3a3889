"""What a prepare of a claim would do on this node now, without doing any of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from dra_driver.config.settings import PluginSettings
from dra_driver.journal.encoding import encode_grant, encode_placement, encode_step
from dra_driver.journal.store import ClaimJournal, read_boot_id
from dra_driver.model.claim import AllocatedClaim, ClaimRef
from dra_driver.model.device import (
    BindPassthrough,
    CreateStage,
    DestroyStage,
    Placement,
    SetMode,
    UnbindPassthrough,
    UndoChange,
)
from dra_driver.model.record import ClaimRecord, Grant, Step
from dra_driver.ports import JsonObject
from kubelet_plugin.footprint import plan_release
from kubelet_plugin.inspection import look_at_hardware
from kubelet_plugin.planner import plan_prepare
from kubelet_plugin.state import NodeState

Outcome: TypeAlias = Literal["Prepare", "UndoAndPrepare", "Replay"]

_WORDS: dict[Outcome, str] = {
    "Prepare": "would be prepared",
    "UndoAndPrepare": "was begun and not finished: it would be undone, then prepared",
    "Replay": "is prepared: it would get the same answer again",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Who would get what (grants), what would be undone before, and the hardware changes that follow (steps)."""

    node: str
    claim: ClaimRef
    outcome: Outcome
    grants: tuple[Grant, ...]
    undo: tuple[UndoChange, ...] = ()
    steps: tuple[Step, ...] = ()


def rehearse(settings: PluginSettings, claim: AllocatedClaim) -> Rehearsal:
    """What would happen. Raises what the prepare would: ClaimError, DeviceHeld (where it would wait), ParametersError."""
    boot_id = read_boot_id()
    journal = ClaimJournal(settings.data_dir / "claims", boot_id=boot_id)
    own = journal.read(claim.ref.uid)
    state = NodeState(settings.node_name, boot_id=boot_id, owner="")
    state.refresh(journal.records())
    for inventory in look_at_hardware(settings).values():
        state.observe(inventory)
    told = Rehearsal(node=settings.node_name, claim=claim.ref, outcome="Replay", grants=())
    if own is not None and own.preparation is not None and not own.releasing:
        return replace(told, grants=own.grants)
    undo = () if own is None else _undo(state, own)
    plan = plan_prepare(state.snapshot(claim))
    outcome: Outcome = "Prepare" if own is None else "UndoAndPrepare"
    return replace(told, outcome=outcome, grants=plan.grants, undo=undo, steps=plan.steps)


def as_json(rehearsal: Rehearsal) -> JsonObject:
    """For programs; devices and steps as the claim's record has them."""
    claim = rehearsal.claim
    return {
        "apiVersion": "gpu.dra-driver.dev/v1alpha1",
        "kind": "PreparePlan",
        "node": rehearsal.node,
        "claim": {"namespace": claim.namespace, "name": claim.name, "uid": claim.uid},
        "outcome": rehearsal.outcome,
        "devices": [encode_grant(grant) for grant in rehearsal.grants],
        "undo": [_encode_undo(change) for change in rehearsal.undo],
        "steps": [encode_step(step) for step in rehearsal.steps],
    }


def as_text(rehearsal: Rehearsal) -> str:
    """For people."""
    lines = [f"claim {rehearsal.claim} on node {rehearsal.node} {_WORDS[rehearsal.outcome]}"]
    for grant in rehearsal.grants:
        share = f", share {grant.share_id}" if grant.share_id else ""
        requests = ", ".join(grant.requests)
        lines.append(f"  {grant.device} of pool {grant.pool}, for request {requests}{share}")
    changes = list(_described(rehearsal))
    lines += [f"  {number}. {change}" for number, change in enumerate(changes, start=1)]
    return "\n".join(lines if changes else [*lines, "  no hardware changes"])


def _undo(state: NodeState, record: ClaimRecord) -> tuple[UndoChange, ...]:
    """What undoes the half-done record; afterwards the state is as if that had been done."""
    undo = plan_release(record, state.inventories, state.records.values())
    for change in undo:
        state.retire(change)
    state.forget(record.claim.uid)
    return undo


def _described(rehearsal: Rehearsal) -> Iterator[str]:
    for gone in rehearsal.undo:
        match gone:
            case DestroyStage(created=created, gpu=gpu):
                yield f"GPU {gpu}: destroy the {created.stage} of {created.profile} at {_at(created.placement)}"
            case UnbindPassthrough(gpu=gpu):
                yield f"GPU {gpu}: give it back to its driver"
    for step in rehearsal.steps:
        match step.change:
            case SetMode(gpu=gpu, mode=mode):
                yield f"GPU {gpu}: switch to mode {mode}"
            case CreateStage(gpu=gpu, stage=stage, profile=profile, placement=placement):
                verb = "share" if step.change.shared else "create"
                yield f"GPU {gpu}: {verb} the {stage} of {profile} at {_at(placement)}"
            case BindPassthrough(gpu=gpu):
                yield f"GPU {gpu}: give it to vfio-pci"
            case UnbindPassthrough(gpu=gpu):
                yield f"GPU {gpu}: give it back to its driver"


def _at(placement: Placement) -> str:
    return f"{placement.start}, part {placement.part}" if placement.part else f"{placement.start}"


def _encode_undo(change: UndoChange) -> JsonObject:
    if isinstance(change, UnbindPassthrough):
        return {"kind": "unbindPassthrough", "gpu": change.gpu}
    created = change.created
    return {
        "kind": "destroyStage",
        "gpu": change.gpu,
        "profile": created.profile,
        "placement": encode_placement(created.placement),
        "stage": created.stage,
        "identity": change.identity,
    }
