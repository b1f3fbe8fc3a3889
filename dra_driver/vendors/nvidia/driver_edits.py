"""The driver's part of every container, made when the driver is new, in a thread of its own.

nvidia-ctk takes seconds and may hang; no claim waits for it but one that comes before anything was made. While it fails, the
search is repeated every ten minutes.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import structlog

from dra_driver.model.device import Vendor
from dra_driver.model.edits import ContainerEdits, SharedEdits
from dra_driver.model.errors import VendorError
from dra_driver.vendors.nvidia.driver_search import DriverSearch, Origin

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long nvidia-ctk may take, how long a claim waits for it, and after how long it is asked again if it failed."""

    toolkit_s: float = 60.0
    claim_s: float = 10.0
    retry_s: float = 600.0


_PATIENCE = Patience()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    origin: Origin
    shared: SharedEdits | None
    seen: tuple[Path, ...]
    """Files of the edits that this process saw when they were made."""
    retry_at_s: float | None

    def holds(self, origin: Origin) -> bool:
        """Whether they are what would be made now."""
        is_due = self.retry_at_s is not None and time.monotonic() >= self.retry_at_s
        return origin == self.origin and not is_due and all(map(os.path.lexists, self.seen))


class DriverEdits:
    """Safe to use from several threads."""

    def __init__(self, search: DriverSearch, patience: Patience = _PATIENCE) -> None:
        self._search = search
        self._patience = patience
        self._changed = threading.Condition()
        self._made: _Made | None = None
        self._wanted: Origin | None = None
        """What the thread makes, or goes on with; None where there is no thread."""

    def expect(self, driver: str) -> None:
        """Soon there will be the edits of that driver version. Returns at once; nothing happens where they hold already."""
        origin = self._search.origin(driver)
        with self._changed:
            is_making, holds = self._wanted is not None, self._made and self._made.holds(origin)
            if is_making or not holds:
                self._wanted = origin
        if not (is_making or holds):
            threading.Thread(target=self._make, name="nvidia-ctk", daemon=True).start()

    def of(self, driver: str) -> SharedEdits | None:
        """The edits of that driver version, None without any; a retryable VendorError where they are still being made."""
        with self._changed:
            if (made := self._of(driver)) is not None:
                return made.shared
        self.expect(driver)
        with self._changed:
            self._changed.wait_for(
                lambda: self._wanted is None or self._of(driver) is not None, self._patience.claim_s
            )
            if (made := self._of(driver)) is not None:
                return made.shared
        raise VendorError(
            f"the files of NVIDIA driver {driver} are still being looked for; the pod starts when that is done,"
            " or look for nvidia-ctk in the plugin's log",
            retryable=True,
        )

    def _of(self, driver: str) -> _Made | None:
        made = self._made
        return made if made is not None and made.origin.driver == driver else None

    def _make(self) -> None:
        """Until nothing else is wanted: the driver may have been reloaded meanwhile."""
        made = None
        try:
            while (origin := self._next(made)) is not None:
                made = self._found(origin)
        except Exception:
            log.exception(
                "the driver's files cannot be looked for; the next look at a GPU tries again"
            )
            with self._changed:
                self._wanted = None
                self._changed.notify_all()

    def _next(self, made: _Made | None) -> Origin | None:
        with self._changed:
            self._made = made or self._made
            if made is not None and made.origin == self._wanted:
                self._wanted = None
            self._changed.notify_all()
            return self._wanted

    def _found(self, origin: Origin) -> _Made:
        edits, is_stopgap = self._search.search(origin, toolkit_s=self._patience.toolkit_s)
        files = (self._search.root.seen(mount.host_path) for mount in edits.mounts)
        return _Made(
            origin=origin,
            shared=_named(edits),
            seen=tuple(filter(os.path.lexists, files)),
            retry_at_s=time.monotonic() + self._patience.retry_s if is_stopgap else None,
        )


def _named(edits: ContainerEdits) -> SharedEdits | None:
    if edits == ContainerEdits():
        return None
    digest = sha256(repr(edits).encode()).hexdigest()[:16]
    return SharedEdits(name=f"{Vendor.NVIDIA}-{digest}", edits=edits)
