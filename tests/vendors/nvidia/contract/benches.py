"""A machine whose first GPU a test changes from outside: what it says of its health, and what its devices do."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from dra_driver.config.load import SimulatedLoad
from dra_driver.vendors.nvidia.nvml_health import Field, XidEvent
from dra_driver.vendors.nvidia.nvml_library import NvmlLibrary
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from tests.vendors.faults import set_faults
from tests.vendors.nvidia.contract.boards import first
from tests.vendors.nvidia.fake.condition import load_of, report, set_fields, set_heat
from tests.vendors.nvidia.fake.machine import FakeHost


class Bench(Protocol):
    """What can happen to the first GPU. What was not said is as it was."""

    @property
    def nvml(self) -> NvmlLibrary:
        """The machine's."""

    def tells(self, fields: Mapping[Field, int | None]) -> None:
        """All fields that it has anything to tell for; it does not offer those that are None."""

    def heats(self, *, is_hot: bool) -> None:
        """It is too hot, or no more."""

    def loses(self, links: int) -> None:
        """So many of its NVLinks are down."""

    def reports(self, *events: XidEvent) -> None:
        """Its driver reports them, one after the other."""

    def works(self, uuid: str, **work: Any) -> None:
        """The GPU, or the MIG device, of that UUID does this, see SimulatedLoad."""


class SimulatedBench:
    """A simulated machine, whose clock goes on by a second whenever it is looked at."""

    def __init__(self, nvml: SimulatedNvml, folder: Path) -> None:
        self.nvml = nvml
        self._folder = folder
        self._fault: dict[str, Any] = {"xids": []}
        self._loads: dict[str, Any] = {}
        seconds = count(time.time())
        nvml.activity._clock = lambda: next(seconds)

    def tells(self, fields: Mapping[Field, int | None]) -> None:
        """See Bench."""
        self._is(fields={field.name: value for field, value in fields.items()})

    def heats(self, *, is_hot: bool) -> None:
        """See Bench."""
        self._is(hot=is_hot)

    def loses(self, links: int) -> None:
        """See Bench."""
        self._is(links_down=links)

    def reports(self, *events: XidEvent) -> None:
        """See Bench."""
        new = [{"xid": one.xid, "instance": one.instance} for one in events]
        self._is(xids=[*self._fault["xids"], *new])

    def works(self, uuid: str, **work: Any) -> None:
        """See Bench."""
        gpu = first(self.nvml)
        self._loads[self.nvml.pci_addresses()[0] if uuid == self.nvml.uuid(gpu) else uuid] = work
        (self._folder / "activity.json").write_text(json.dumps(self._loads))

    def _is(self, **fault: Any) -> None:
        self._fault |= fault
        set_faults(self._folder, {self.nvml.pci_addresses()[0]: self._fault})


class FakeBench:
    """A host whose NVML is the C library."""

    def __init__(self, nvml: NvmlLibrary, host: FakeHost) -> None:
        self.nvml = nvml
        self.host = host
        self._gpu = host.addresses[0]

    def tells(self, fields: Mapping[Field, int | None]) -> None:
        """See Bench."""
        with self.host.changing_gpu(self._gpu) as gpu:
            set_fields(gpu.health, fields)

    def heats(self, *, is_hot: bool) -> None:
        """See Bench."""
        with self.host.changing_gpu(self._gpu) as gpu:
            set_heat(gpu.health, is_hot=is_hot)

    def loses(self, links: int) -> None:
        """See Bench."""
        with self.host.changing_gpu(self._gpu) as gpu:
            gpu.health.links_down = links

    def reports(self, *events: XidEvent) -> None:
        """See Bench."""
        with self.host.changing_gpu(self._gpu) as gpu:
            for event in events:
                report(gpu.health, event)

    def works(self, uuid: str, **work: Any) -> None:
        """See Bench."""
        with self.host.changing_gpu(self._gpu) as gpu:
            computes = (one for instance in gpu.instances for one in instance.computes)
            (device,) = (one for one in (gpu, *computes) if one.uuid == uuid.encode())
            device.load = load_of(SimulatedLoad.model_validate(work))
