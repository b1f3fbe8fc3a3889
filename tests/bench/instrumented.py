"""Our plugin with a counter on its syncs: `python -m tests.bench.instrumented COUNTER run ...`.

For bars that count; never for one that compares times. COUNTER is a file whose length is the number of syncs so far.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from unittest.mock import patch


def counted(sync: Callable[[int], None], counter: int) -> Callable[[int], None]:
    """The function, which leaves a byte in the counter's file for each call."""

    def counting(descriptor: int) -> None:
        os.write(counter, b".")
        sync(descriptor)

    return counting


def main(counter: str) -> None:
    """The plugin's own entry point, instrumented."""
    descriptor = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with ExitStack() as patches:
        for name in ("fsync", "fdatasync"):
            patches.enter_context(patch.object(os, name, counted(getattr(os, name), descriptor)))
        # Only now: the journal takes the function that it syncs with when it is imported.
        from kubelet_plugin.__main__ import main as run  # noqa: PLC0415

        run()


if __name__ == "__main__":
    main(sys.argv.pop(1))
