"""Where a host keeps the libraries of its NVIDIA driver: they must be the kernel module's version, so the container has none."""

from __future__ import annotations

from pathlib import Path

_DRIVER_ROOTS = ("", "run/nvidia/driver", "home/kubernetes/bin/nvidia")
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


def driver_library(host_root: Path, name: str) -> Path | None:
    """The file of that name among the driver's libraries; None where the host keeps it nowhere that we know."""
    candidates = (
        host_root / root / folder / name for root in _DRIVER_ROOTS for folder in LIBRARY_FOLDERS
    )
    return next((path for path in candidates if path.exists()), None)
