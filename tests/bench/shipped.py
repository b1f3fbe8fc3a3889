"""A module of ours as the image runs it: `python -m tests.bench.shipped MODULE ARGUMENT...`.

The development environment has rich, because a linter prints with it, and structlog loads what it finds of it. The image has not.
"""

from __future__ import annotations

import runpy
import sys


def main(module: str) -> None:
    """Run the module, which sees the arguments that follow its name."""
    sys.modules["rich"] = None  # type: ignore[assignment]  # whoever imports it is told that there is none
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv.pop(1))
