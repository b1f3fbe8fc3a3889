"""A sysfs tree with AMD GPUs in it, written from a machine profile: the reader above it is the one used on hardware."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from dra_driver.config.machine import GpuSpec, Machine
from dra_driver.model.device import Vendor
from dra_driver.model.errors import MachineError


@dataclass(frozen=True, slots=True)
class Model:
    """A product of the catalogue. All of these have eight dies and four SIMDs in each compute unit."""

    product_name: str
    device_id: int
    gfx_target_version: int
    memory_mib: int
    compute_units: int


CATALOGUE = MappingProxyType(
    {
        "MI300X": Model("AMD Instinct MI300X OAM", 0x74A1, 90402, 196_592, 304),
        "MI325X": Model("AMD Instinct MI325X OAM", 0x74A5, 90402, 262_128, 304),
        "MI355X": Model("AMD Instinct MI355X OAM", 0x75A3, 90500, 294_896, 256),
    }
)
_PARTITIONS = MappingProxyType({"SPX": 1, "DPX": 2, "QPX": 4, "CPX": 8})
_BUSES = (0x05, 0x26, 0x46, 0x65, 0x85, 0xA6, 0xC6, 0xE5)
_CPU_NODES = 2
_SIMDS_PER_UNIT = 4
_FIRST_MINOR, _MINORS_PER_GPU = 128, 8
_DRIVER_VERSION = "6.12.12"


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the index-th GPU sits: as on an eight-GPU platform, then the same once more in the next PCI domain."""

    index: int

    @property
    def address(self) -> str:
        """The PCI address."""
        return f"{self._domain}:{self._bus:02x}:00.0"

    @property
    def path(self) -> str:
        """The device's folder below /sys: behind a bridge of one of the host's PCIe roots."""
        root = f"{self._domain}:{self._bus & 0xE0:02x}"
        return f"devices/pci{root}/{root}:01.1/{self.address}"

    def location(self, partition: int) -> dict[str, int]:
        """The KFD's coordinates of one partition."""
        return {
            "domain": int(self._domain, 16),
            "location_id": self._bus << 8 | partition << 28,
            "drm_render_minor": _FIRST_MINOR + _MINORS_PER_GPU * self.index + partition,
        }

    @property
    def _domain(self) -> str:
        return f"{self.index // len(_BUSES):04x}"

    @property
    def _bus(self) -> int:
        return _BUSES[self.index % len(_BUSES)]


def build_tree(machine: Machine, folder: Path, *, node: str) -> Path:
    """Make `folder` look like the /sys of that machine's AMD GPUs, and return it; MachineError.

    Doing so again changes nothing. A GPU's unique id follows from the node's name and its address, so that nodes differ and
    restarts do not. A folder is for one machine: GPUs of another one that was built there before stay.
    """
    specs = [spec for spec in machine.gpus if spec.vendor is Vendor.AMD for _ in range(spec.count)]
    models = [_checked(spec, machine.name) for spec in specs]
    kfd_nodes = [{"cpu_cores_count": 96, "simd_count": 0, "location_id": 0}] * _CPU_NODES
    for index, (model, mode) in enumerate(models):
        slot, numa_node = Slot(index), index * _CPU_NODES // len(models)
        files = _device_files(model, mode)
        files["numa_node"] = str(numa_node)
        files["unique_id"] = hashlib.sha256(f"{node}/{slot.address}".encode()).hexdigest()[:16]
        _write_device(folder, slot, files)
        kfd_nodes += _kfd_nodes(model, slot, partitions=_PARTITIONS[mode])
    _write(folder / "module/amdgpu/version", _DRIVER_VERSION)
    _write_topology(folder, kfd_nodes)
    return folder


def _checked(spec: GpuSpec, machine: str) -> tuple[Model, str]:
    """The model and its compute mode, if there can be such a GPU."""
    mode = spec.mode or "SPX"
    if spec.model not in CATALOGUE:
        known = ", ".join(CATALOGUE)
        raise MachineError(f"machine {machine}: AMD GPU model {spec.model!r} is not one of {known}")
    if mode not in _PARTITIONS:
        known = ", ".join(_PARTITIONS)
        raise MachineError(
            f"machine {machine}: mode {mode!r} of {spec.model} is not one of {known}"
        )
    if spec.instances:
        raise MachineError(
            f"machine {machine}: {spec.model} lists instances; an AMD GPU's mode makes them, so remove them"
        )
    return CATALOGUE[spec.model], mode


def _device_files(model: Model, mode: str) -> dict[str, str]:
    return {
        "vendor": "0x1002",
        "device": f"0x{model.device_id:04x}",
        "product_name": model.product_name,
        "mem_info_vram_total": str(model.memory_mib * 2**20),
        "current_compute_partition": mode,
    }


def _write_device(folder: Path, slot: Slot, files: dict[str, str]) -> None:
    device = folder / slot.path
    for name, text in files.items():
        _write(device / name, text)
    _link(folder / "bus/pci/drivers/amdgpu" / slot.address, device)


def _kfd_nodes(model: Model, slot: Slot, *, partitions: int) -> list[dict[str, int]]:
    """The properties of each partition's node; a whole GPU is its only partition."""
    size = {
        "cpu_cores_count": 0,
        "simd_count": model.compute_units * _SIMDS_PER_UNIT // partitions,
        "simd_per_cu": _SIMDS_PER_UNIT,
        "gfx_target_version": model.gfx_target_version,
    }
    return [size | slot.location(partition) for partition in range(partitions)]


def _write_topology(folder: Path, kfd_nodes: list[dict[str, int]]) -> None:
    kfd = folder / "devices/virtual/kfd/kfd"
    for number, properties in enumerate(kfd_nodes):
        text = "\n".join(f"{name} {value}" for name, value in properties.items())
        _write(kfd / f"topology/nodes/{number}/properties", text)
    _link(folder / "class/kfd/kfd", kfd)


def _write(path: Path, text: str) -> None:
    """Files that say so already are left alone: another process may be reading them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != f"{text}\n":
        path.write_text(f"{text}\n")


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        path.symlink_to(os.path.relpath(target, path.parent))
