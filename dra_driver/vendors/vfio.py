"""PCI devices in the hands of virtual machines: the kernel's VFIO as sysfs shows it, the same for every vendor's GPUs.

A machine gets whole IOMMU groups, so a GPU goes with its other functions (audio, USB) or not at all. Every change is a
write to sysfs, and each is left out where it was made before, so that what was interrupted can be done again, or undone.
See docs.kernel.org/driver-api/vfio.html.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from dra_driver.model.errors import VendorError

Write: TypeAlias = Callable[[Path, str], None]
"""Writes a text into a file of sysfs, as one write; OSError where the kernel refuses."""

log = structlog.get_logger(__name__)

DRIVER: Final = "vfio-pci"
_PCI_BRIDGE: Final = "0x0604"


def write_file(file: Path, text: str) -> None:
    """What `Write` promises, of the kernel's own sysfs. A file that is not there is not made."""
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


class Vfio:
    """PCI functions, by address, and who drives them. `sys` is the host's /sys. All methods raise VendorError."""

    def __init__(self, sys: Path, write: Write = write_file) -> None:
        self._sys = sys
        self._devices, self._drivers = sys / "bus/pci/devices", sys / "bus/pci/drivers"
        self._write = write

    def functions(self, gpu: str) -> tuple[str, ...]:
        """What goes with the GPU, itself last; VendorError says why it cannot go.

        Last, because its audio function depends on it.
        """
        group = self._devices / gpu / "iommu_group"
        if not group.exists():
            raise VendorError(
                f"GPU {gpu} cannot be passed through: it is in no IOMMU group; turn the IOMMU on, in the firmware "
                "and on the kernel's command line (intel_iommu=on, or amd_iommu=on)"
            )
        if not (self._drivers / DRIVER).exists():
            raise VendorError(
                f"GPU {gpu} cannot be passed through: the kernel module {DRIVER} is not loaded; load it when the node boots",
                retryable=True,
            )
        with _reading(gpu):
            self._refuse_virtual_functions(gpu)
            slot = gpu.rpartition(".")[0]
            others = [one.name for one in (group / "devices").iterdir() if one.name != gpu]
            own = [one for one in others if one.rpartition(".")[0] == slot]
            strange = sorted(one for one in set(others).difference(own) if not self._is_bridge(one))
            if strange:
                raise VendorError(
                    f"GPU {gpu} cannot be passed through: its IOMMU group {group.readlink().name} also holds "
                    f"{', '.join(strange)}; put it into another slot, or turn ACS on in the firmware"
                )
        return (*sorted(own), gpu)

    def driver_of(self, function: str) -> str | None:
        """The name of the driver that has the function now; None where none has it, or it is not plugged in."""
        try:
            return (self._devices / function / "driver").readlink().name
        except FileNotFoundError:
            return None

    def is_there(self, function: str) -> bool:
        """Whether it is plugged in."""
        return (self._devices / function).exists()

    def take(self, functions: Sequence[str]) -> None:
        """They are with vfio-pci when this returns."""
        for function in functions:
            self._steer(function, DRIVER)
            if self.driver_of(function) != DRIVER:
                self._leave(function)
                self._enter(function, DRIVER)

    def give_back(self, drivers: Mapping[str, str | None]) -> None:
        """Each of these functions is with that driver again, or with none where there is no such driver (any more).

        The GPU, which is the last, comes first. Its other functions do without a driver that refuses them: no claim waits for
        a sound card.
        """
        gpu = [*drivers][-1]
        for function, driver in reversed(list(drivers.items())):
            if driver == DRIVER or not self.is_there(function):
                continue  # it was there before, or is nowhere
            self._steer(function, "")
            if self.driver_of(function) == DRIVER:
                self._leave(function)
            is_free = self.driver_of(function) is None
            if is_free and driver is not None and (self._drivers / driver).exists():
                try:
                    self._enter(function, driver)
                except VendorError as error:
                    if function == gpu:
                        raise
                    log.warning("a GPU's function has no driver", gpu=gpu, why=str(error))

    def nodes(self, functions: Sequence[str]) -> tuple[str, ...]:
        """The device nodes through which a virtual machine uses these functions, which are with vfio-pci.

        The kernel offers them as a legacy group, through iommufd, or both ways; who opens them chooses. None: it offers neither.
        """
        found: list[str] = []
        with _reading(functions[-1]):
            group = (self._devices / functions[-1] / "iommu_group").readlink().name
        if (self._sys / "class/vfio" / group).exists():
            found += ["/dev/vfio/vfio", f"/dev/vfio/{group}"]
        with_files = [
            device.parent.name
            for function in functions
            for device in sorted((self._devices / function).glob("vfio-dev/vfio*/dev"))
        ]
        if with_files and (self._sys / "class/misc/iommu").exists():
            found += ["/dev/iommu", *(f"/dev/vfio/devices/{name}" for name in with_files)]
        return tuple(found)

    def display_nodes(self, gpu: str) -> tuple[str, ...]:
        """The DRM device nodes that the GPU's own driver made."""
        with suppress(FileNotFoundError):
            names = [entry.name for entry in (self._devices / gpu / "drm").iterdir()]
            return tuple(f"/dev/dri/{name}" for name in sorted(names))
        return ()

    def _refuse_virtual_functions(self, gpu: str) -> None:
        count = self._devices / gpu / "sriov_numvfs"
        if count.exists() and count.read_text().strip() != "0":
            raise VendorError(
                f"GPU {gpu} cannot be passed through while it has virtual functions; write 0 to its sriov_numvfs",
                retryable=True,
            )

    def _is_bridge(self, function: str) -> bool:
        return (self._devices / function / "class").read_text().startswith(_PCI_BRIDGE)

    def _steer(self, function: str, driver: str) -> None:
        """Only that driver may take the function from now on; empty: whichever knows it."""
        override = self._devices / function / "driver_override"
        now = ""
        with _reading(function), suppress(FileNotFoundError):
            now = override.read_text().strip().removeprefix("(null)")
        if now != driver:
            self._change(override, f"{driver}\n")

    def _leave(self, function: str) -> None:
        if self.driver_of(function) is not None:
            self._change(self._devices / function / "driver/unbind", function)

    def _enter(self, function: str, driver: str) -> None:
        self._change(self._drivers / driver / "bind", function)
        if self.driver_of(function) != driver:
            raise VendorError(
                f"PCI function {function}: the driver {driver} did not take it; look for it in the node's kernel log",
                retryable=True,
            )

    def _change(self, file: Path, text: str) -> None:
        try:
            self._write(file, text)
        except OSError as error:
            raise VendorError(
                f"{file}: the kernel refused {text.strip()!r}: {error.strerror}; "
                "see that the driver is loaded and that this process may write the host's /sys",
                retryable=True,
            ) from error


@contextmanager
def _reading(function: str) -> Iterator[None]:
    """What sysfs does not show is a VendorError: the function may have been unplugged a moment ago."""
    try:
        yield
    except OSError as error:
        raise VendorError(
            f"PCI function {function}: {error.filename} cannot be read: {error.strerror}; see whether it is plugged in",
            retryable=True,
        ) from error
