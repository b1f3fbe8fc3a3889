"""The sysfs of simulated GPUs behind an IOMMU: a folder, in which writes have the effects that they have in the kernel's.

It outlives processes and is shared by them. Each GPU has an audio function beside it in its IOMMU group, and behind vfio-pci
both ways to be used: a legacy group and a device file for iommufd.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from dra_driver.vendors.vfio import DRIVER

_AUDIO = "snd_hda_intel"
_FIRST_GROUP = 16


class SimulatedBus:
    """Made where it is not there yet, with all GPUs at their `driver`. `write` is a `vfio.Write`."""

    def __init__(self, sys: Path, gpus: Iterable[str], driver: str) -> None:
        self._sys = sys
        self._devices, self._drivers = sys / "bus/pci/devices", sys / "bus/pci/drivers"
        if not (sys / "class/misc/iommu").exists():
            for name in (driver, _AUDIO, DRIVER):
                (self._drivers / name).mkdir(parents=True, exist_ok=True)
                (self._drivers / name / "bind").touch()
                (self._drivers / name / "unbind").touch()
            for group, gpu in enumerate(gpus, start=_FIRST_GROUP):
                self._plug(gpu, driver, group)
                self._plug(f"{gpu[:-1]}1", _AUDIO, group)
            (sys / "class/misc/iommu").mkdir(parents=True, exist_ok=True)  # last: all is there

    def write(self, file: Path, text: str) -> None:
        """What the kernel does when that is written; OSError with the number that it would give."""
        if not file.exists():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        match file.name:
            case "driver_override":
                file.write_text(text)
            case "unbind":
                self._unbind(text, file.parent.resolve().name)
            case "bind":
                self._bind(text, file.parent.name)

    def _plug(self, function: str, driver: str, group: int) -> None:
        device = self._devices / function
        device.mkdir(parents=True, exist_ok=True)
        (device / "class").write_text("0x030200\n" if driver != _AUDIO else "0x040300\n")
        (device / "modalias").write_text(f"{driver}\n")
        (device / "driver_override").write_text("(null)\n")
        members = self._sys / f"kernel/iommu_groups/{group}/devices"
        members.mkdir(parents=True, exist_ok=True)
        _link(members / function, device)
        _link(device / "iommu_group", members.parent)
        self._attach(function, driver)

    def _bind(self, function: str, driver: str) -> None:
        device = self._devices / function
        override = (device / "driver_override").read_text().strip().removeprefix("(null)")
        wanted = override or (device / "modalias").read_text().strip()
        if wanted != driver or (device / "driver").exists():
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        self._attach(function, driver)
        if driver == DRIVER:
            group = (device / "iommu_group").resolve().name
            (self._sys / "class/vfio" / group).mkdir(parents=True, exist_ok=True)
            number = sorted(self._devices.iterdir()).index(device)
            file = device / f"vfio-dev/vfio{number}/dev"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("511:0\n")

    def _unbind(self, function: str, driver: str) -> None:
        bound = self._drivers / driver / function
        if not bound.is_symlink():
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        for file in (self._devices / function).glob("vfio-dev/vfio*/dev"):
            file.unlink()
        (self._devices / function / "driver").unlink()
        bound.unlink()

    def _attach(self, function: str, driver: str) -> None:
        _link(self._drivers / driver / function, self._devices / function)
        _link(self._devices / function / "driver", self._drivers / driver)


def _link(at: Path, target: Path) -> None:
    if not at.is_symlink():
        at.symlink_to(os.path.relpath(target.resolve(), at.parent.resolve()))
