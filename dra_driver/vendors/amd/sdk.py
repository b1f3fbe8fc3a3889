"""What the kernel says about AMD GPUs: PCI devices bound to amdgpu, joined with their nodes of the KFD topology.

The join is by PCI domain and `location_id`. `unique_id` would not do: whether the partitions of a GPU share it depends on
the driver's version. Format: drivers/gpu/drm/amd/amdkfd/kfd_topology.c and Documentation/gpu/amdgpu in the Linux source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dra_driver.vendors.pci import bound_addresses

_PCIE_ROOT = re.compile(r"pci[0-9a-f]{4,}:[0-9a-f]{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KfdNode:
    """A GPU as compute sees it. `gfx_target_version` is 90402 for gfx942."""

    compute_units: int
    gfx_target_version: int
    render_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PciGpu:
    """A PCI device bound to amdgpu. None stands for what this GPU, or this driver, does not tell.

    `compute_mode` is SPX, DPX, QPX, TPX or CPX where the GPU can be partitioned. `kfd` is the node of the whole GPU, or of
    its first partition.
    """

    pci_address: str
    pci_id: str
    product_name: str | None
    unique_id: str | None
    memory_bytes: int | None
    numa_node: int | None
    pcie_root: str | None
    compute_mode: str | None
    kfd: KfdNode | None


class Sysfs:
    """Reads the tree below `root` anew on each call. A file that is missing, unreadable or odd hides itself alone."""

    def __init__(self, root: Path = Path("/sys")) -> None:
        self._root = root
        self._bound = root / "bus/pci/drivers/amdgpu"

    def addresses(self) -> tuple[str, ...]:
        """PCI addresses of all devices bound to amdgpu, ascending; VendorError where the driver is not loaded."""
        return bound_addresses(self._bound)

    def gpu(self, pci_address: str, kfd_nodes: Mapping[str, KfdNode]) -> PciGpu | None:
        """The device at that address, or None if it is not bound to amdgpu (any more)."""
        device = self._bound / pci_address
        if not device.exists():
            return None
        numa_node = _number(self._text(device / "numa_node"))
        roots = (part for part in device.resolve().parts if _PCIE_ROOT.fullmatch(part))
        ids = (self._text(device / name) or "0x????" for name in ("vendor", "device"))
        return PciGpu(
            pci_address=pci_address,
            pci_id=":".join(text.removeprefix("0x") for text in ids),
            product_name=self._text(device / "product_name"),
            unique_id=_unique_id(self._text(device / "unique_id")),
            memory_bytes=_number(self._text(device / "mem_info_vram_total")),
            numa_node=None if numa_node is None or numa_node < 0 else numa_node,
            pcie_root=next(roots, None),
            compute_mode=self._text(device / "current_compute_partition"),
            kfd=kfd_nodes.get(pci_address),
        )

    def kfd_nodes(self) -> dict[str, KfdNode]:
        """The KFD's GPU nodes by PCI address; of a partitioned GPU the one of its first partition."""
        nodes: dict[str, KfdNode] = {}
        for folder in (self._root / "class/kfd/kfd/topology/nodes").glob("*"):
            properties = _properties(self._text(folder / "properties") or "")
            node = _kfd_node(properties)
            if node is None:
                continue
            address = _pci_address(properties)
            known = nodes.get(address)
            if known is None or node.render_minor < known.render_minor:
                nodes[address] = node
        return nodes

    def driver_version(self) -> str:
        """The version of the amdgpu module; empty for the kernel's own amdgpu, which has none."""
        return self._text(self._root / "module/amdgpu/version") or ""

    def _text(self, path: Path) -> str | None:
        try:
            return self._content(path).strip() or None
        except OSError:
            return None

    def _content(self, path: Path) -> str:
        return path.read_text(errors="replace")


def _number(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def _unique_id(text: str | None) -> str | None:
    """Sixteen hexadecimal digits; zero is what boards without an id report."""
    return text if text and text.strip("0") else None


def _properties(text: str) -> dict[str, int]:
    """A KFD `properties` file: a name and a number on each line."""
    words = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdecimal()}


def _kfd_node(properties: dict[str, int]) -> KfdNode | None:
    """None for a CPU's node, and for one that lacks what we need."""
    simds, per_unit = properties.get("simd_count", 0), properties.get("simd_per_cu", 0)
    minor = properties.get("drm_render_minor", 0)
    if not (simds and per_unit and minor):
        return None
    return KfdNode(
        compute_units=simds // per_unit,
        gfx_target_version=properties.get("gfx_target_version", 0),
        render_minor=minor,
    )


def _pci_address(properties: dict[str, int]) -> str:
    """Of the location, the low 16 bits are bus, device and function; higher ones may number a partition."""
    location = properties.get("location_id", 0)
    bus, device, function = location >> 8 & 0xFF, location >> 3 & 0x1F, location & 7
    return f"{properties.get('domain', 0):04x}:{bus:02x}:{device:02x}.{function}"
