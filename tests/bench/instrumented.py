"""Our plugin with a counter on its syncs and, if wanted, a slow driver below: `python -m tests.bench.instrumented COUNTER DELAY_S run ...`.

For bars that count, and for hardware that takes its time; never for a bar that compares times with a peer. COUNTER is a file
whose length is the number of syncs so far. DELAY_S is how long every change of simulated hardware takes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from dra_driver.vendors.nvidia.simulated import SimulatedNvml

_CHANGES = (
    "set_mig_mode",
    "create_gpu_instance",
    "create_compute_instance",
    "destroy_compute_instance",
    "destroy_gpu_instance",
)


def counted(sync: Callable[[int], None], counter: int) -> Callable[[int], None]:
    """The function, which leaves a byte in the counter's file for each call."""

    def counting(descriptor: int) -> None:
        os.write(counter, b".")
        sync(descriptor)

    return counting


def slowed(change: Callable[..., Any], delay_s: float) -> Callable[..., Any]:
    """The function, as slow as hardware; other threads may run meanwhile, as in a call of a C library."""

    def slow(*given: Any) -> Any:
        time.sleep(delay_s)
        return change(*given)

    return slow


def main(counter: str, delay_s: float) -> None:
    """The plugin's own entry point, instrumented."""
    descriptor = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with ExitStack() as patches:
        for name in ("fsync", "fdatasync"):
            patches.enter_context(patch.object(os, name, counted(getattr(os, name), descriptor)))
        for name in _CHANGES:
            slow = slowed(getattr(SimulatedNvml, name), delay_s)
            patches.enter_context(patch.object(SimulatedNvml, name, slow))
        # Only now: the journal takes the function that it syncs with when it is imported.
        from kubelet_plugin.__main__ import main as run  # noqa: PLC0415

        run()


if __name__ == "__main__":
    file, delay = sys.argv[1:3]
    del sys.argv[1:3]
    main(file, float(delay))
