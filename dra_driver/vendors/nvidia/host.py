"""The host around an NVIDIA GPU: which device nodes there are, and which files of the driver belong to them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

from dra_driver.model.device import Target
from dra_driver.model.edits import ContainerEdits, DeviceNode, SharedEdits
from dra_driver.model.errors import VendorError
from dra_driver.vendors.nvidia.device_numbers import device_numbers
from dra_driver.vendors.nvidia.driver_edits import DriverEdits
from dra_driver.vendors.nvidia.driver_root import DriverRoot

_OPTIONAL = ("/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")
"""Of kernel modules that a node may do without."""


class DriverHost:
    """What `NvidiaBackend` knows of the host."""

    def __init__(self, root: DriverRoot, driver: DriverEdits) -> None:
        self._root = root
        self._driver = driver
        self._pci_devices = root.seen("/sys/bus/pci/devices")
        self._devices = root.seen("/proc/devices")
        self._host_root = str(root.host_root).rstrip("/")

    def expect(self, driver_version: str) -> None:
        """That driver is loaded: have its files ready before a claim asks for them."""
        self._driver.expect(driver_version)

    def driver_files(self, driver_version: str) -> SharedEdits | None:
        """What every container gets of that driver; None where nothing of it was found, VendorError while it is being looked for."""
        return self._driver.of(driver_version)

    def on_host(self, own: ContainerEdits, target: Target) -> ContainerEdits:
        """The target's edits with the device nodes that this host has; VendorError where one is missing. Asks no GPU."""
        paths = [node.path for node in own.device_nodes]
        if target.instance is None:
            paths += self._rendering(target.gpu)
        nodes = tuple(self._nodes(dict.fromkeys([*paths, *_OPTIONAL])))
        return replace(own, device_nodes=nodes)

    def _rendering(self, pci_address: str) -> list[str]:
        """The GPU's own nodes in /dev/dri, where the kernel numbers all GPUs of all vendors; none without nvidia-drm."""
        folder = self._pci_devices / pci_address / "drm"
        try:
            names = sorted(entry.name for entry in folder.iterdir())
        except FileNotFoundError:
            return []
        paths = (f"/dev/dri/{name}" for name in names if name.startswith(("card", "renderD")))
        return [path for path in paths if self._place(path) is not None]

    def _nodes(self, paths: Iterable[str]) -> Iterator[DeviceNode]:
        for path in paths:
            place = self._place(path)
            if place is not None:
                yield DeviceNode(path=path, host_path=None if place == path else place)
            elif (numbers := device_numbers(path, self._devices)) is not None:
                yield DeviceNode(path=path, numbers=numbers)
            elif path not in _OPTIONAL:
                raise VendorError(
                    f"device node {path} is not on this node, and its kernel module is not loaded;"
                    " load it, or set nvidiaDriverRoot",
                    retryable=True,
                )

    def _place(self, path: str) -> str | None:
        """The node's path on the host: in its /dev, else in that of the driver's container; None where it is in neither."""
        if self._exists(path):
            return path
        place = self._root.on_host(path)
        return place if self._exists(place) else None

    def _exists(self, path: str) -> bool:
        return os.access(f"{self._host_root}{path}", os.F_OK)
