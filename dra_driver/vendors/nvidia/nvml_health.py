"""The part of NVML that tells how GPUs are, as a protocol beside `nvml`: real and simulated hardware differ only below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from dra_driver.vendors.nvidia.nvml import Handle
from dra_driver.vendors.nvidia.nvml_activity import MeasuringNvml


class Field(IntEnum):
    """The `NVML_FI_DEV_*` that we read."""

    ECC_UNCORRECTED_VOLATILE = 4
    ECC_UNCORRECTED_AGGREGATE = 6
    RETIRED_PENDING = 31
    REMAPPED_PENDING = 144
    REMAPPED_FAILURE = 145
    RECOVERY_ACTION = 230


class RecoveryAction(IntEnum):
    """`nvmlDeviceGpuRecoveryAction_t`: what the driver wants to be done."""

    NONE = 0
    GPU_RESET = 1
    NODE_REBOOT = 2
    DRAIN_P2P = 3
    DRAIN_AND_RESET = 4
    RECOVER_IMEX_DOMAIN = 5
    BUS_RESET = 6
    SYSTEM_REBOOT = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class XidEvent:
    """An XID that the driver reported; `instance` is the id of the GPU instance, where it is one's alone."""

    xid: int
    instance: int | None = None


class NvmlHealth(Protocol):
    """One method per library call, as in `Nvml`; every method raises NvmlError."""

    def field_values(self, gpu: Handle, fields: Sequence[Field]) -> Mapping[Field, int]:
        """Those of the fields that this GPU and driver have."""

    def active_links(self, gpu: Handle) -> int:
        """How many NVLinks are up; NOT_SUPPORTED where the GPU has none, or does not say."""

    def open_events(self, gpu: Handle) -> Handle:
        """An event set to which the GPU's XIDs come from now on; NOT_SUPPORTED where it reports none."""

    def next_event(self, events: Handle) -> XidEvent | None:
        """The oldest XID that nobody took out of the set yet; None at once where there is none."""

    def close_events(self, events: Handle) -> None:
        """Give the set back."""


class DiagnosingNvml(MeasuringNvml, Protocol):
    """The library with its part about health; what slows a GPU down, heat too, its measuring calls say."""

    @property
    def health(self) -> NvmlHealth:
        """The calls about health, on the same handles."""
