"""Who has a GPU open. NVML counts work on the GPU only, and it is monitoring that keeps a mode from changing."""

from __future__ import annotations

from typing import Protocol

from dra_driver.vendors.nvidia.nvml import Handle, Nvml


class GpuUsers(Protocol):
    """Asked only when a GPU turned out to be in use: the answer costs a walk over all processes."""

    def users(self, gpu: Handle) -> tuple[str, ...]:
        """`dcgm-exporter (PID 4711)` for each process but this one that has the GPU open, as far as can be seen from here."""


class SwitchingNvml(Nvml, GpuUsers, Protocol):
    """What changing a GPU's mode takes."""
