"""Major and minor numbers of NVIDIA's device nodes, as the kernel has them.

Nobody may have made a node yet: those in /dev/nvidia-caps come into being when a program first opens one, which for a
partition made a moment ago has not happened.
"""

from __future__ import annotations

import re
from pathlib import Path

_NAMES = {
    "nvidia": "nvidia",
    "nvidia-frontend": "nvidia",  # of older drivers
    "nvidia-uvm": "nvidia-uvm",
    "nvidia-caps": "nvidia-caps",
}
"""Names in /proc/devices, and whose major number it is."""

_FIXED = {
    "/dev/nvidiactl": ("nvidia", 255),
    "/dev/nvidia-uvm": ("nvidia-uvm", 0),
    "/dev/nvidia-uvm-tools": ("nvidia-uvm", 1),
}
_NUMBERED = re.compile(r"/dev/(?:(?P<gpu>nvidia)|nvidia-caps/nvidia-cap)(?P<minor>\d+)")


def device_numbers(path: str, devices: Path) -> tuple[int, int] | None:
    """Major and minor of the node; None where its module is not loaded, says `devices`, the host's /proc/devices."""
    numbered = _NUMBERED.fullmatch(path)
    if numbered is not None:
        module, minor = "nvidia" if numbered["gpu"] else "nvidia-caps", int(numbered["minor"])
    elif path in _FIXED:
        module, minor = _FIXED[path]
    else:
        return None
    major = _majors(devices).get(module)
    return None if major is None else (major, minor)


def _majors(devices: Path) -> dict[str, int]:
    """Character devices only; the table of block devices stands behind them."""
    characters = devices.read_text().partition("Block devices:")[0]
    rows = (line.split() for line in characters.splitlines())
    return {_NAMES[row[1]]: int(row[0]) for row in rows if len(row) == 2 and row[1] in _NAMES}
