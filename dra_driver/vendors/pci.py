"""The PCI bus as the kernel lists it: asking it reaches no device, so a GPU that hangs delays nobody who looks for GPUs."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from pathlib import Path

from dra_driver.model.errors import VendorError

_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def bound_addresses(driver: Path) -> tuple[str, ...]:
    """PCI addresses of the devices bound to the driver, ascending. `driver` is its folder below /sys/bus/pci/drivers.

    A driver that is not loaded is a retryable VendorError and not an empty list: while it is being reloaded nobody knows
    what it will find.
    """
    try:
        names = [entry.name for entry in driver.iterdir()]
    except FileNotFoundError:
        raise VendorError(
            f"{driver} is not there: the kernel module is not loaded (any more); load it",
            retryable=True,
        ) from None
    except OSError as error:
        raise VendorError(
            f"{driver} cannot be listed: {error.strerror}; mount the host's /sys into this container",
            retryable=True,
        ) from error
    return tuple(sorted(name for name in names if _ADDRESS.fullmatch(name)))


class Numbering:
    """Numbers GPUs in the order of their addresses; one that goes away keeps its number until the process ends.

    So neither a sick GPU nor an unplugged one changes what is published of the others.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def index(self, pci_address: str, present: Iterable[str]) -> int:
        """The number of that address, given all that are present now."""
        with self._lock:
            self._seen.update(present, [pci_address])
            return sorted(self._seen).index(pci_address)
