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


def test_a_container_may_have_the_node_elsewhere(tmp_path: Path) -> None:
    """A path that ends as the node's is the node's; one of another number is not."""
    for pid, path in ((7, "/host/dev/nvidia0"), (8, "/dev/nvidia01"), (9, "/dev/nvidia0")):
        (tmp_path / f"{pid}/fd").mkdir(parents=True)
        (tmp_path / f"{pid}/fd/3").symlink_to(path)
        (tmp_path / f"{pid}/comm").write_text("monitor\n")
    assert holders(tmp_path, {"/dev/nvidia0"}) == ("monitor (PID 7)", "monitor (PID 9)")


def test_no_nodes_have_no_holders() -> None:
    """A GPU without nodes of its own is not looked for."""
    assert holders(PROC, ()) == ()


def test_a_process_that_cannot_be_looked_into_is_passed_over(tmp_path: Path) -> None:
    """It may have ended meanwhile."""
    (tmp_path / "7").mkdir()
    (tmp_path / "self").mkdir()
    assert holders(tmp_path, {"/dev/nvidia0"}) == ()
