"""Where the driver's files lie: one place for the host and its container runtime, another one for this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_USUAL_ROOTS = (Path("/"), Path("/run/nvidia/driver"), Path("/home/kubernetes/bin/nvidia"))
"""The host itself, the driver container of NVIDIA's GPU operator, Google's node images."""

_TRIPLES = ("x86_64-linux-gnu", "aarch64-linux-gnu")
LIBRARY_FOLDERS = (
    "usr/lib64",
    *(f"usr/lib/{triple}" for triple in _TRIPLES),
    *(f"usr/lib/{triple}/nvidia/current" for triple in _TRIPLES),
    "lib64",
    *(f"lib/{triple}" for triple in _TRIPLES),
)
"""By distribution; Debian's `current` holds what its other folder names by an absolute link, which leads nowhere from here."""

NVML_LIBRARY = "libnvidia-ml.so.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverRoot:
    """One root for NVML, for the files that containers get and for the driver's device nodes.

    `configured` is its path on the host, None: wherever NVML is; `host_root` is where this process sees the host.
    """

    configured: Path | None = None
    host_root: Path = Path("/")

    @property
    def path(self) -> Path:
        """The root on the host as it is now: a driver container may come later than we do. `/` where NVML is nowhere."""
        if self.configured is not None:
            return self.configured
        return next((root for root in _USUAL_ROOTS if self._nvml_below(root)), Path("/"))

    @property
    def here(self) -> Path:
        """The driver's root as this process sees it."""
        return self.seen(self.path)

    def nvml(self) -> Path | None:
        """NVML's library as this process sees it: it must be the kernel module's version, so our image has none."""
        return self._nvml_below(self.path)

    def seen(self, path: str | Path) -> Path:
        """A path of the host as this process sees it."""
        return self.host_root / str(path).lstrip("/")

    def on_host(self, path: str | Path) -> str:
        """A path below the driver's root as the host and its runtime know it."""
        return str(self.path / str(path).lstrip("/"))

    def _nvml_below(self, root: Path) -> Path | None:
        candidates = (self.seen(root / folder / NVML_LIBRARY) for folder in LIBRARY_FOLDERS)
        return next((path for path in candidates if path.exists()), None)
