"""How simulated NVIDIA GPUs are: well, and what `faults.json` says of them.

As on hardware, an XID reaches those who asked for it before, each of them once: those that are added to the file's list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dra_driver.vendors.fault_file import FaultFile
from dra_driver.vendors.nvidia.nvml import Code, NvmlError
from dra_driver.vendors.nvidia.nvml_health import Field, XidEvent
from dra_driver.vendors.nvidia.simulated_faults import meets_faults
from dra_driver.vendors.nvidia.simulated_gpu import SimulatedGpu

_NOT_OFFERED = {Field.RETIRED_PENDING: None}
"""Since Ampere memory is repaired by remapping rows instead of retiring pages."""


@dataclass(slots=True)
class _Events:
    """An event set: `taken` of the file's XIDs have been taken out of it, or were there before."""

    gpu: SimulatedGpu
    taken: int


@meets_faults
class SimulatedHealth:
    """Implements `NvmlHealth`."""

    def __init__(self, faults: FaultFile) -> None:
        self.faults = faults

    def field_values(self, gpu: SimulatedGpu, fields: Sequence[Field]) -> Mapping[Field, int]:
        """See NvmlHealth. What the file does not speak of is 0, and what is None there is not offered."""
        said = self.faults.of(gpu.pci_address).fields
        values = {field: said.get(field.name, _NOT_OFFERED.get(field, 0)) for field in fields}
        return {field: value for field, value in values.items() if value is not None}

    def active_links(self, gpu: SimulatedGpu) -> int:
        """See NvmlHealth."""
        if not gpu.board.nvlinks:
            raise NvmlError(Code.NOT_SUPPORTED, "simulated NVML: NVLinks")
        return max(0, gpu.board.nvlinks - self.faults.of(gpu.pci_address).links_down)

    def open_events(self, gpu: SimulatedGpu) -> _Events:
        """See NvmlHealth."""
        return _Events(gpu, len(self.faults.of(gpu.pci_address).xids))

    def next_event(self, events: _Events) -> XidEvent | None:
        """See NvmlHealth. A list that was cut short begins anew."""
        xids = self.faults.of(events.gpu.pci_address).xids
        events.taken = min(events.taken, len(xids))
        if events.taken == len(xids):
            return None
        events.taken += 1
        told = xids[events.taken - 1]
        return XidEvent(xid=told.xid, instance=told.instance)

    def close_events(self, events: _Events) -> None:
        """See NvmlHealth."""

    def address(self, handle: SimulatedGpu | _Events) -> str:
        """The PCI address of the GPU that the handle is about."""
        return handle.gpu.pci_address if isinstance(handle, _Events) else handle.pci_address
