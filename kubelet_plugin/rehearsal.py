"""What a prepare of a claim would do on this node now, without doing any of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from dra_driver.config.settings import PluginSettings
from dra_driver.journal.encoding import encode_grant, encode_step
from dra_driver.journal.store import ClaimJournal, read_boot_id
from dra_driver.model.claim import AllocatedClaim
from dra_driver.model.device import CreateStage, DestroyStage, SetMode
from dra_driver.model.errors import RecordError
from dra_driver.model.record import ClaimRecord
from dra_driver.ports import JsonObject
from kubelet_plugin.inspection import copied, inventories_of
from kubelet_plugin.planner import plan_prepare, plan_release
from kubelet_plugin.state import NodeState

Outcome: TypeAlias = Literal["Prepare", "UndoAndPrepare", "Replay"]

_WORDS: dict[Outcome, str] = {
    "Prepare": "would be prepared",
    "UndoAndPrepare": "was begun and not finished: it would be undone, then prepared",
    "Replay": "is prepared: it would get the same answer again",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """`undo` comes before the plan's steps. `damaged`: claims whose records cannot be read, so what they hold is unknown."""

    node: str
    outcome: Outcome
    undo: tuple[DestroyStage, ...]
    plan: ClaimRecord
    damaged: tuple[str, ...]


def rehearse(settings: PluginSettings, claim: AllocatedClaim) -> Rehearsal:
    """What would happen. Raises what the prepare would: ClaimError, DeviceHeld (where it would wait), ParametersError."""
    boot_id, uid = read_boot_id(), claim.ref.uid
    state = NodeState(settings.node_name, boot_id=boot_id, owner="")
    with copied(settings) as look:
        for inventory in inventories_of(look).values():
            state.observe(inventory)
        records, damages = ClaimJournal(look.data_dir / "claims", boot_id=boot_id).load()
    state.refresh(records)
    damaged = {damage.claim_uid: damage for damage in damages}
    if uid in damaged:
        raise RecordError(f"claim {claim.ref}: {damaged[uid].message}")
    outcome, undo = _clear_way(state, uid)
    plan = records[uid] if outcome == "Replay" else plan_prepare(state.snapshot(claim))
    return Rehearsal(
        node=settings.node_name, outcome=outcome, undo=undo, plan=plan, damaged=tuple(damaged)
    )


def as_json(rehearsal: Rehearsal) -> JsonObject:
    """For programs; devices and steps as the claim's record has them."""
    plan = rehearsal.plan
    return {
        "apiVersion": "gpu.dra-driver.dev/v1alpha1",
        "kind": "PreparePlan",
        "node": rehearsal.node,
        "claim": {
            "namespace": plan.claim.namespace,
            "name": plan.claim.name,
            "uid": plan.claim.uid,
        },
        "outcome": rehearsal.outcome,
        "devices": [encode_grant(grant) for grant in plan.grants],
        "undo": [_encode_undo(change) for change in rehearsal.undo],
        "steps": [encode_step(step) for step in plan.steps] if _changes(rehearsal) else [],
    }


def as_text(rehearsal: Rehearsal) -> str:
    """For people."""
    plan = rehearsal.plan
    lines = [f"claim {plan.claim} on node {rehearsal.node} {_WORDS[rehearsal.outcome]}"]
    for grant in plan.grants:
        shared = f", share {grant.share_id}" if grant.share_id else ""
        requests = ", ".join(grant.requests)
        lines.append(f"  {grant.device} of pool {grant.pool}, for request {requests}{shared}")
    steps = list(_described(rehearsal))
    lines += [f"  {number}. {step}" for number, step in enumerate(steps, start=1)]
    if not steps:
        lines.append("  no hardware changes")
    return "\n".join(lines)


def _clear_way(state: NodeState, uid: str) -> tuple[Outcome, tuple[DestroyStage, ...]]:
    """What the claim's own record makes of its next prepare; afterwards the state is as if that had been undone."""
    record = state.records.get(uid)
    if record is None:
        return "Prepare", ()
    if record.preparation is not None and not record.releasing:
        return "Replay", ()
    undo = plan_release(record, state.inventories)
    for change in undo:
        state.retire(change)
    state.forget(uid)
    return "UndoAndPrepare", undo


def _changes(rehearsal: Rehearsal) -> bool:
    return rehearsal.outcome != "Replay"


def _described(rehearsal: Rehearsal) -> Iterator[str]:
    for gone in rehearsal.undo:
        created = gone.created
        yield f"GPU {gone.gpu}: destroy the {created.stage} of {created.profile} at {created.placement.start}"
    for step in rehearsal.plan.steps if _changes(rehearsal) else ():
        match step.change:
            case SetMode(gpu=gpu, mode=mode):
                yield f"GPU {gpu}: switch to mode {mode}"
            case CreateStage(gpu=gpu, stage=stage, profile=profile, placement=placement):
                yield f"GPU {gpu}: create the {stage} of {profile} at {placement.start}"


def _encode_undo(change: DestroyStage) -> JsonObject:
    created = change.created
    return {
        "kind": "destroyStage",
        "gpu": change.gpu,
        "profile": created.profile,
        "placement": {"start": created.placement.start, "size": created.placement.size},
        "stage": created.stage,
        "identity": change.identity,
    }
