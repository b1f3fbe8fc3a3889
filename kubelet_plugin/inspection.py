"""Looking at a node without touching it: no socket, no lock, nothing that exists is changed, and a plugin may serve meanwhile.

Simulated hardware only exists as files, which opening it would make; so it is copied, and the copy is looked at.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from dra_driver.config.settings import PluginSettings
from dra_driver.model.errors import StartError, VendorError
from dra_driver.model.health import Ailment
from dra_driver.model.inventory import Inventory
from dra_driver.vendors.discovery import discover
from kubelet_plugin.hardware import open_backends

_DEVICE_NODES = "dev"


def look_at_hardware(settings: PluginSettings) -> Mapping[str, Inventory]:
    """What every vendor's backend finds now, by pool name. VendorError where a driver does not answer at all."""
    inventories = {}
    with _untouched(settings) as apart:
        for pool, backend in open_backends(apart, only_looks=True).items():
            try:
                inventories[pool] = discover(backend)
            finally:
                backend.close()
    return inventories


def look_at_health(settings: PluginSettings) -> Mapping[str, tuple[Ailment, ...]]:
    """What the GPUs that tell it suffer from now, by PCI address. What a driver reports only once, when it happens, is not in it."""
    found: dict[str, tuple[Ailment, ...]] = {}
    with _untouched(settings) as apart:
        for backend in open_backends(apart).values():
            try:
                for address in backend.addresses():
                    with suppress(VendorError):
                        found[address] = backend.health(address) or ()
            finally:
                backend.close()
    return found


@contextmanager
def _untouched(settings: PluginSettings) -> Iterator[PluginSettings]:
    with TemporaryDirectory(prefix="dra-look-") as name:
        copy = Path(name) / "simulation"
        if settings.machine is not None and settings.simulation_dir.exists():
            _copy(settings.simulation_dir, copy)
        yield settings.model_copy(update={"simulation_dir": copy})


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copytree(source, target, symlinks=True, ignore=_device_nodes)
    except OSError as error:
        raise StartError(
            f"folder {source} cannot be read: {error}; run this as the plugin's user"
        ) from error


def _device_nodes(_: str, names: Collection[str]) -> list[str]:
    return [name for name in names if name == _DEVICE_NODES]
