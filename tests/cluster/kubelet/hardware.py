"""The simulated GPUs of a real node, and what they say of themselves when no plugin is asked."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from dra_driver.config.machine import load_machine
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.vendors.nvidia.simulated_state import InstanceState
from tests.cluster.node import Node

_NVIDIA, _UVM, _CAPABILITIES = 195, 400, 401
"""Major numbers; the first one is NVIDIA's own, the kernel chooses the others."""

_MACHINE = """
apiVersion: gpu.dra-driver.dev/v1alpha1
kind: Machine
name: {name}
gpus:
{gpus}
"""

DeviceNodes: TypeAlias = dict[str, tuple[int, int]]
"""Device nodes by path, with major and minor."""

COMMON_NODES: DeviceNodes = {
    "/dev/nvidiactl": (_NVIDIA, 255),
    "/dev/nvidia-uvm": (_UVM, 0),
    "/dev/nvidia-uvm-tools": (_UVM, 1),
}
"""What every container with an NVIDIA GPU has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigDevice:
    """A MIG device that exists, its size in slices of memory, and the device nodes that are its own and its GPU's."""

    uuid: str
    size: int
    nodes: DeviceNodes


class Hardware:
    """GPUs as a machine profile lists them; their state lies in a folder called `name` below the node's."""

    def __init__(self, node: Node, name: str, gpus: str) -> None:
        self.folder = node.root / name
        self.machine = node.root / f"{name}.yaml"
        self.machine.write_text(_MACHINE.format(name=name, gpus=gpus))
        machine = load_machine(str(self.machine))
        self.vendors = {gpu.vendor for gpu in machine.gpus}
        is_new = not self.folder.exists()
        self._nvml = SimulatedNvml(machine, node=node.name, state_dir=self.folder / "nvidia")
        if is_new:
            self._make_nodes()
        self.theirs = self.instances()

    def gpu_nodes(self) -> DeviceNodes:
        """Each NVIDIA GPU's own device node."""
        return {
            _gpu_path(minor): (_NVIDIA, minor) for minor in range(len(self._nvml.pci_addresses()))
        }

    def gpu_uuids(self) -> frozenset[str]:
        """Of all NVIDIA GPUs."""
        gpus = map(self._nvml.gpu_by_address, self._nvml.pci_addresses())
        return frozenset(map(self._nvml.uuid, gpus))

    def instances(self) -> frozenset[str]:
        """Every GPU instance that exists: GPU, identifier, and the UUIDs of the MIG devices in it."""
        return frozenset(
            f"{address} gi-{one.id} {' '.join(compute.uuid for compute in one.computes)}"
            for address, _, one in self._gpu_instances()
        )

    def made(self) -> frozenset[str]:
        """The GPU instances that were not there when this object was made."""
        return self.instances() - self.theirs

    def mig_devices(self) -> list[MigDevice]:
        """Every MIG device that exists."""
        return [
            MigDevice(
                uuid=compute.uuid,
                size=instance.placement.size,
                nodes=self._nodes(minor, instance.id, compute.id),
            )
            for _, minor, instance in self._gpu_instances()
            for compute in instance.computes
        ]

    def _make_nodes(self) -> None:
        """Device nodes with numbers like real ones, where the simulation would make some that are all alike.

        No driver is behind them: containers may look at them, and nobody opens them.
        """
        gpus = len(self._nvml.pci_addresses())
        nodes = COMMON_NODES | self.gpu_nodes()
        last = self._nvml.capability_minor(f"gpu{gpus}/gi0/access")
        nodes |= {_capability_path(minor): (_CAPABILITIES, minor) for minor in range(last)}
        for path, numbers in nodes.items():
            host = self.folder / path.lstrip("/")
            host.parent.mkdir(parents=True, exist_ok=True)
            os.mknod(host, stat.S_IFCHR | 0o666, os.makedev(*numbers))

    def _nodes(self, gpu: int, instance: int, compute: int) -> DeviceNodes:
        rights = (f"gpu{gpu}/gi{instance}/access", f"gpu{gpu}/gi{instance}/ci{compute}/access")
        minors = map(self._nvml.capability_minor, rights)
        own = {_capability_path(minor): (_CAPABILITIES, minor) for minor in minors}
        return {_gpu_path(gpu): (_NVIDIA, gpu)} | own

    def _gpu_instances(self) -> Iterator[tuple[str, int, InstanceState]]:
        """Address and minor number of its GPU with each GPU instance."""
        for address in self._nvml.pci_addresses():
            gpu = self._nvml.gpu_by_address(address)
            for instance in self._nvml.state(gpu).instances:
                yield address, self._nvml.minor(gpu), instance


def _gpu_path(minor: int) -> str:
    """The device node of that GPU."""
    return f"/dev/nvidia{minor}"


def _capability_path(minor: int) -> str:
    return f"/dev/nvidia-caps/nvidia-cap{minor}"
