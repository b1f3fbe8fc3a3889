"""A node whose GPUs may change hands: a tree of files that acts as the kernel's sysfs does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dra_driver.config.machine import Machine
from dra_driver.model.device import (
    BindPassthrough,
    UnbindPassthrough,
)
from dra_driver.vendors.handovers import Handovers
from dra_driver.vendors.holders import Holder
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.vendors.passthrough import PassthroughBackend
from dra_driver.vendors.vfio import Vfio
from dra_driver.vendors.vfio_simulated import SimulatedBus

GPU, AUDIO, OTHER = "0000:1b:00.0", "0000:1b:00.1", "0000:43:00.0"
BIND, UNBIND = BindPassthrough(gpu=GPU), UnbindPassthrough(gpu=GPU)
BOOT = "11111111-2222-3333-4444-555555555555"
NATIVE: Mapping[str, str | None] = {AUDIO: "snd_hda_intel", GPU: "nvidia"}
AWAY: Mapping[str, str | None] = {AUDIO: "vfio-pci", GPU: "vfio-pci"}


class Killed(BaseException):
    """A process that ends here; nothing may catch it."""


@dataclass
class Host:
    """Two GPUs of a node; `process()` is a process that starts on it, which dies at its `dies_at`-th write from now."""

    folder: Path
    machine: Machine
    dies_at: float = float("inf")
    writes: list[str] = field(default_factory=list)
    users: tuple[Holder, ...] = ()
    looked_for: set[str] = field(default_factory=set)

    @property
    def sys(self) -> Path:
        return self.folder / "sys"

    def process(self, *, offered: bool = True, boot_id: str = BOOT) -> PassthroughBackend:
        driver = self.sys / "bus/pci/drivers/nvidia"
        nvml = SimulatedNvml(self.machine, node="n", state_dir=self.folder / "gpus", driver=driver)
        bus = SimulatedBus(self.sys, nvml.faults.gpus, "nvidia")

        def write(file: Path, text: str) -> None:
            if len(self.writes) >= self.dies_at:
                raise Killed
            self.writes.append(str(file.relative_to(self.sys)))
            bus.write(file, text)

        handovers = Handovers(self.folder / "passthrough", boot_id)
        backend = PassthroughBackend(
            NvidiaBackend(nvml), Vfio(self.sys, write), handovers, self._using, offered=offered
        )
        backend.patience_s = 0.0
        return backend

    def drivers(self) -> Mapping[str, str | None]:
        """Who has the GPU's functions now, as the kernel says."""
        return {function: Vfio(self.sys).driver_of(function) for function in NATIVE}

    def device(self, function: str) -> Path:
        return self.sys / "bus/pci/devices" / function

    def _using(self, _: str, nodes: Collection[str]) -> tuple[Holder, ...]:
        self.looked_for |= set(nodes)
        return self.users


def machine(**spec: object) -> Machine:
    return Machine.model_validate(
        {
            "apiVersion": "gpu.dra-driver.dev/v1alpha1",
            "kind": "Machine",
            "name": "two",
            "gpus": [{"vendor": "nvidia", "model": "H100-SXM5-80GB", "count": 2, **spec}],
        }
    )
