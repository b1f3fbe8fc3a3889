"""What hardware suffers from, in words that fit every vendor: what was found at one look, and what holds over several."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from dra_driver.model.device import Placement
from dra_driver.model.slices import TaintEffect


class Cause(StrEnum):
    """What kind of trouble it is; also the last part of the taint's key, and a label of metrics."""

    DRIVER_ERROR = "driver-error"
    """The driver reported an error of the hardware (NVIDIA: an XID)."""
    RECOVERY_DUE = "recovery-due"
    """The driver asks for a reset, a reboot or the like."""
    MEMORY_ERROR = "memory-error"
    """Errors that were not corrected are being counted."""
    MEMORY_REPAIR = "memory-repair"
    """Bad memory waits to be taken out of use, or cannot be."""
    INTERCONNECT = "interconnect"
    """Links to other GPUs are down."""
    THERMAL = "thermal"
    """The hardware slows itself down because it is too hot."""


class Severity(IntEnum):
    """How much of it is left. DEGRADED: it works, with less or not for long; BROKEN: nothing new must go there."""

    DEGRADED = 1
    BROKEN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ailment:
    """What one look found of a GPU, or only of the instance at that placement.

    `message` is for people; `detail` is a short word or number that may stand as a label's value.
    """

    cause: Cause
    severity: Severity
    message: str
    detail: str = ""
    instance: Placement | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """An ailment that counts now, after hysteresis. `since` is when it began, on a monotonic clock; `effect` is its taint's."""

    ailment: Ailment
    since: float
    effect: TaintEffect

    @property
    def is_usable(self) -> bool:
        """Whether what has it may still be given out."""
        return self.effect == "None"
