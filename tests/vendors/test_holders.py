"""Who has a device node open, asked of the real /proc."""

from __future__ import annotations

import os
from pathlib import Path

from dra_driver.vendors.holders import holders

PROC = Path("/proc")


def test_a_process_with_the_node_open_is_named(tmp_path: Path) -> None:
    """By its name and number, while it has it open and no longer."""
    node = tmp_path / "nvidia0"
    with node.open("w"):
        (found,) = holders(PROC, {str(node)})
    assert found == f"{Path('/proc/self/comm').read_text().strip()} (PID {os.getpid()})"
    assert holders(PROC, {str(node)}) == ()


def test_no_nodes_have_no_holders() -> None:
    """A GPU without nodes of its own is not looked for."""
    assert holders(PROC, ()) == ()


def test_a_process_that_cannot_be_looked_into_is_passed_over(tmp_path: Path) -> None:
    """It may have ended meanwhile."""
    (tmp_path / "7").mkdir()
    (tmp_path / "self").mkdir()
    assert holders(tmp_path, {"/dev/nvidia0"}) == ()
