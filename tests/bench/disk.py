"""A driver in Python on a disk like those of nodes: `python -m tests.bench.disk SYNC_MS MODULE ARGUMENT...`.

The driver's files are in memory, where a sync takes no time, and each fsync and fdatasync takes SYNC_MS, in the thread that asks for it.
So a verdict does not depend on the disk of the machine that measures, which may acknowledge from a cache what a node's disk has to write.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

MEMORY = Path("/dev/shm")


def slowed(sync: Callable[[int], None], seconds: float) -> Callable[[int], None]:
    """The function on a disk that takes so long."""

    def syncing(descriptor: int) -> None:
        sync(descriptor)
        time.sleep(seconds)

    return syncing


def main(sync_ms: float, module: str) -> None:
    """Run the module, which sees the arguments that follow its name."""
    for name in ("fsync", "fdatasync"):  # before the module is imported, which may take them then
        setattr(os, name, slowed(getattr(os, name), sync_ms / 1e3))
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    duration_ms, program = sys.argv[1:3]
    del sys.argv[1:3]
    main(float(duration_ms), program)
