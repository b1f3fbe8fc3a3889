"""Where the driver's files lie: one place for the host and its container runtime, another one for this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverRoot:
    """`path` is the driver's root on the host: `/`, or that of a driver container; `host_root` is where this process sees the host."""

    path: Path = Path("/")
    host_root: Path = Path("/")

    @property
    def here(self) -> Path:
        """The driver's root as this process sees it."""
        return self.seen(self.path)

    def seen(self, path: str | Path) -> Path:
        """A path of the host as this process sees it."""
        return self.host_root / str(path).lstrip("/")

    def on_host(self, path: str | Path) -> str:
        """A path below the driver's root as the host and its runtime know it."""
        return str(self.path / str(path).lstrip("/"))
