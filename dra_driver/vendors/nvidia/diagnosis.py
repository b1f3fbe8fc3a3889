"""From what NVML says of a GPU to what it suffers from: pure, so that each rule stands alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dra_driver.model.device import Placement
from dra_driver.model.health import Ailment, Cause, Severity
from dra_driver.vendors.nvidia.nvml import Code
from dra_driver.vendors.nvidia.nvml_activity import ClockReason
from dra_driver.vendors.nvidia.nvml_health import Field, RecoveryAction
from dra_driver.vendors.nvidia.xids import UNKNOWN_XID, XIDS

_ADVICE = {
    RecoveryAction.GPU_RESET: (Severity.BROKEN, "reset the GPU"),
    RecoveryAction.NODE_REBOOT: (Severity.BROKEN, "reboot the node"),
    RecoveryAction.DRAIN_P2P: (Severity.DEGRADED, "end what it exchanges with other GPUs"),
    RecoveryAction.DRAIN_AND_RESET: (Severity.BROKEN, "end what runs on it, then reset it"),
    RecoveryAction.RECOVER_IMEX_DOMAIN: (Severity.DEGRADED, "recover its IMEX domain"),
    RecoveryAction.BUS_RESET: (Severity.BROKEN, "reset its PCI bus"),
    RecoveryAction.SYSTEM_REBOOT: (Severity.BROKEN, "reboot the whole system"),
}

LOSSES: Mapping[int, tuple[str, str]] = {
    Code.GPU_IS_LOST: ("gpu-is-lost", "the driver has lost it; reboot the node"),
    Code.RESET_REQUIRED: ("gpu-reset", "the driver uses it no more; reset the GPU"),
}
"""The codes by which NVML says that a GPU is of no use, in the words of a label and of people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one look at a GPU gave; what it does not offer is absent.

    `xid` is the one behind a recommended action, as far as it is known; `links_lost` counts against the most that were up.
    """

    fields: Mapping[Field, int] = field(default_factory=dict)
    xid: int | None = None
    has_new_ecc_errors: bool = False
    links_lost: int = 0
    clock_reasons: int = 0


def ailments_in(reading: Reading) -> Iterator[Ailment]:
    """What the GPU suffers from by this reading, XIDs apart."""
    yield from _recovery(reading)
    yield from _memory(reading)
    if reading.links_lost:
        yield Ailment(
            cause=Cause.INTERCONNECT,
            severity=Severity.DEGRADED,
            message=f"{reading.links_lost} NVLinks that were up are down; reset the GPU",
        )
    if reading.clock_reasons & ClockReason.HW_THERMAL_SLOWDOWN:
        yield Ailment(
            cause=Cause.THERMAL,
            severity=Severity.DEGRADED,
            message="it is too hot and slows itself down; look after its cooling",
        )  # the software's slowdown at its target is everyday life


def ailment_of_xid(xid: int, instance: Placement | None) -> Ailment:
    """What an XID that is no program's own says of the GPU, or of one instance, where the driver recommends nothing."""
    severity, meaning, remedy = XIDS.get(xid, UNKNOWN_XID)
    return Ailment(
        cause=Cause.DRIVER_ERROR,
        severity=severity,
        message=f"XID {xid}: {meaning}; {remedy}",
        detail=str(xid),
        instance=instance,
    )


def ailment_of_loss(code: int) -> Ailment:
    """What a GPU has that NVML refuses to speak of. What NVML keeps in memory, its UUID say, may be told as if nothing were."""
    detail, message = LOSSES[code]
    return Ailment(
        cause=Cause.RECOVERY_DUE, severity=Severity.BROKEN, message=message, detail=detail
    )


def _recovery(reading: Reading) -> Iterator[Ailment]:
    action = reading.fields.get(Field.RECOVERY_ACTION, RecoveryAction.NONE)
    if action == RecoveryAction.NONE:
        return
    known = next((one for one in RecoveryAction if one == action), None)
    severity, advice = (
        _ADVICE[known] if known else (Severity.BROKEN, "look it up in NVML's reference")
    )
    name = known.name if known else f"ACTION_{action}"
    why = "" if reading.xid is None else f" (XID {reading.xid}: {_meaning(reading.xid)})"
    yield Ailment(
        cause=Cause.RECOVERY_DUE,
        severity=severity,
        message=f"the driver recommends {name}: {advice}{why}",
        detail=name.lower().replace("_", "-"),
    )


def _meaning(xid: int) -> str:
    return XIDS.get(xid, UNKNOWN_XID)[1]


def _memory(reading: Reading) -> Iterator[Ailment]:
    fields = reading.fields
    if reading.has_new_ecc_errors:
        ever = fields.get(Field.ECC_UNCORRECTED_AGGREGATE)
        message = (
            f"{fields[Field.ECC_UNCORRECTED_VOLATILE]} memory errors that ECC could not correct since the driver "
            f"was loaded{'' if ever is None else f', {ever} in its life'}"
        )
        yield _of_memory(Cause.MEMORY_ERROR, Severity.DEGRADED, message)
    if fields.get(Field.REMAPPED_FAILURE):
        message = "a bad memory row could not be remapped; replace the GPU"
        yield _of_memory(Cause.MEMORY_REPAIR, Severity.BROKEN, message)
    if fields.get(Field.REMAPPED_PENDING):
        message = "a bad memory row is remapped at the next reset; reset the GPU when it is idle"
        yield _of_memory(Cause.MEMORY_REPAIR, Severity.DEGRADED, message)
    if fields.get(Field.RETIRED_PENDING):
        message = "bad memory pages are retired at the next reset; reset the GPU when it is idle"
        yield _of_memory(Cause.MEMORY_REPAIR, Severity.DEGRADED, message)


def _of_memory(cause: Cause, severity: Severity, message: str) -> Ailment:
    return Ailment(cause=cause, severity=severity, message=message)
