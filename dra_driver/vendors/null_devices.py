"""Device nodes of simulated hardware: harmless ones, so that a real runtime can put them into a real container."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

from dra_driver.model.activity import Activity
from dra_driver.model.device import Gpu, PartitionChange, Target, Vendor
from dra_driver.model.edits import ContainerEdits, DeviceNode, SharedEdits
from dra_driver.model.errors import VendorError
from dra_driver.model.health import Ailment
from dra_driver.ports import Backend

_NULL = os.makedev(1, 3)


class NullDevices:
    """A `ports.Backend` whose device nodes lie below `root` and behave as /dev/null; all else is the inner backend's.

    Making device nodes takes root. Without it they are plain files: the sandbox never opens them, a runtime refuses them.
    """

    def __init__(self, inner: Backend, root: Path) -> None:
        self.vendor: Vendor = inner.vendor
        self._inner = inner
        self._root = root

    def addresses(self) -> tuple[str, ...]:
        """As the inner backend."""
        return self._inner.addresses()

    def read(self, pci_address: str) -> Gpu:
        """As the inner backend."""
        return self._inner.read(pci_address)

    def partition(self, change: PartitionChange) -> str:
        """As the inner backend."""
        return self._inner.partition(change)

    def identify(self, target: Target) -> tuple[str, ...]:
        """As the inner backend."""
        return self._inner.identify(target)

    def edits(self, target: Target) -> ContainerEdits:
        """The inner backend's, with nodes that exist."""
        edits = self._inner.edits(target)
        return replace(edits, device_nodes=tuple(map(self._existing, edits.device_nodes)))

    def shared(self) -> SharedEdits | None:
        """As the inner backend."""
        return self._inner.shared()

    def health(self, pci_address: str) -> tuple[Ailment, ...] | None:
        """As the inner backend."""
        return self._inner.health(pci_address)

    def activity(self, pci_address: str) -> tuple[Activity, ...]:
        """As the inner backend."""
        return self._inner.activity(pci_address)

    def close(self) -> None:
        """As the inner backend."""
        self._inner.close()

    def _existing(self, node: DeviceNode) -> DeviceNode:
        host = self._root / node.path.lstrip("/")
        try:
            if not host.exists():
                host.parent.mkdir(parents=True, exist_ok=True)
                _make_null(host)
        except OSError as error:
            raise VendorError(
                f"device node {host}: {error.strerror}; give simulationDir a folder that can be written",
                retryable=True,
            ) from error
        return replace(node, host_path=str(host))


def _make_null(path: Path) -> None:
    """Several GPUs share nodes, and are asked for them at the same time: whoever comes second finds it."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, _NULL)
    except FileExistsError:
        return
    except PermissionError:
        path.touch()
