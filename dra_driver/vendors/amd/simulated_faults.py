"""A simulated sysfs tree whose GPUs can be taken away, and whose files can hang or fail."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

from dra_driver.config.faults import DRIVER, Vocabulary
from dra_driver.model.errors import VendorError
from dra_driver.vendors.amd.sdk import KfdNode, PciGpu, Sysfs
from dra_driver.vendors.fault_file import FaultFile

_LIST = "addresses"
_FILES = (
    "vendor",
    "device",
    "product_name",
    "unique_id",
    "mem_info_vram_total",
    "numa_node",
    "current_compute_partition",
)


class SimulatedSysfs(Sysfs):
    """`Sysfs` on a tree of `simulated.build_tree`, with the faults that `faults.json` in its root says.

    A call is the reading of a GPU's file, by its name, or `addresses` for the driver's list; an error is the name of an
    errno. A GPU that is absent is not bound to amdgpu, an absent driver is not loaded.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        words = Vocabulary(
            gpus=super().addresses(), calls=(_LIST, *_FILES), errors=errno.errorcode.values()
        )
        self._faults = FaultFile(root / "faults.json", words)

    def addresses(self) -> tuple[str, ...]:
        """As on hardware, without the absent ones."""
        with self._faults.around(DRIVER, _LIST, _list_refused):
            return self._faults.present(super().addresses())

    def gpu(self, pci_address: str, kfd_nodes: Mapping[str, KfdNode]) -> PciGpu | None:
        """As on hardware, None if it is absent."""
        return None if self._faults.of(pci_address).absent else super().gpu(pci_address, kfd_nodes)

    def driver_version(self) -> str:
        """As on hardware."""
        return self._faults.of(DRIVER).version or super().driver_version()

    def _content(self, path: Path) -> str:
        with self._faults.around(path.parent.name, path.name, _read_refused):
            return super()._content(path)


def _list_refused(error: str | None) -> VendorError:
    why = f"fails with {error}" if error else "is not loaded (any more); load it"
    return VendorError(f"simulated sysfs: amdgpu {why}", retryable=True)


def _read_refused(error: str | None) -> OSError:
    number = next((n for n, name in errno.errorcode.items() if name == error), errno.ENODEV)
    return OSError(number, error)
