"""Processes that never outlive the one that started them."""

from __future__ import annotations

import subprocess
import sys


def test_a_process_whose_parent_was_killed_first_ends_at_once() -> None:
    """Between a process's start and its request to the kernel the parent may die; then nobody would ever end it."""
    code = (
        "from dra_driver.sandbox.orphans import end_with_parent; end_with_parent(0); print('alive')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=20, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, b"")
