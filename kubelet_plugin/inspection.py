"""Looking at a node without touching it: no socket, no lock, no file of the plugin is opened for writing.

What only exists as files (the claims' records, simulated hardware) is copied first, because opening the original would tidy it
up. So a plugin may serve the node meanwhile; what it is just writing is seen as it was or as it will be.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from dra_driver.config.settings import PluginSettings
from dra_driver.model.errors import StartError
from dra_driver.model.inventory import Inventory
from dra_driver.vendors.discovery import discover
from kubelet_plugin.hardware import open_backends

_DEVICE_NODES = "dev"


@contextmanager
def copied(settings: PluginSettings) -> Iterator[PluginSettings]:
    """The same settings with copies of the folders that hold state; they are gone afterwards."""
    with TemporaryDirectory(prefix="dra-look-") as name:
        folder = Path(name)
        _copy(settings.data_dir / "claims", folder / "data/claims")
        _copy(settings.simulation_dir, folder / "simulation")
        yield settings.model_copy(
            update={"data_dir": folder / "data", "simulation_dir": folder / "simulation"}
        )


def inventories_of(settings: PluginSettings) -> Mapping[str, Inventory]:
    """What every vendor's backend finds now, by pool name. VendorError where one does not answer at all."""
    found = {}
    for pool, backend in open_backends(settings).items():
        try:
            found[pool] = discover(backend)
        finally:
            backend.close()
    return found


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copytree(
            source, target, symlinks=True, ignore=_device_nodes, copy_function=_copy_file
        )
    except FileNotFoundError:
        target.mkdir(parents=True)
    except OSError as error:
        raise StartError(
            f"folder {source} cannot be read: {error}; run this as the plugin's user"
        ) from error


def _device_nodes(_: str, names: Collection[str]) -> list[str]:
    return [name for name in names if name == _DEVICE_NODES]


def _copy_file(source: str, target: str) -> None:
    with suppress(FileNotFoundError):  # a claim that was released meanwhile
        shutil.copyfile(source, target)
