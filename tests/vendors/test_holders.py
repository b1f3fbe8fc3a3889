"""Who has a device node open, asked of the real /proc and of folders like it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from dra_driver.model.errors import VendorError
from dra_driver.vendors.holders import Holder, holders, other_holders

NODE = "/dev/nvidia0"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """The real /proc, but of this process alone: others may be anybody's."""
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    (folder / "self").symlink_to(str(os.getpid()))
    return folder


def has_open(proc: Path, pid: int, *paths: str, name: str | None = "monitor") -> None:
    """A process with these files open."""
    (proc / f"{pid}/fd").mkdir(parents=True)
    for number, path in enumerate(paths):
        (proc / f"{pid}/fd/{number}").symlink_to(path)
    if name is not None:
        (proc / f"{pid}/comm").write_text(f"{name}\n")


def test_a_process_with_the_node_open_is_named(proc: Path, tmp_path: Path) -> None:
    """By its name and number, while it has it open and no longer; whoever asks knows itself."""
    node = tmp_path / "nvidia0"
    with node.open("w"):
        (found,) = holders(proc, {str(node)})
        assert other_holders(proc, {str(node)}) == ()
    assert str(found) == f"{Path('/proc/self/comm').read_text().strip()} (PID {os.getpid()})"
    assert found.is_ours
    assert holders(proc, {str(node)}) == ()


def test_a_node_that_was_removed_is_still_open(proc: Path, tmp_path: Path) -> None:
    """As where a container's /dev is being torn down."""
    node = tmp_path / "nvidia0"
    with node.open("w"):
        node.unlink()
        assert [one.pid for one in holders(proc, {str(node)})] == [os.getpid()]


def test_a_container_may_have_the_node_elsewhere(tmp_path: Path) -> None:
    """A path that ends as the node's is the node's; one of another number is not. Each process once, by number."""
    has_open(tmp_path, 4711, "/host/dev/nvidia0", NODE)
    has_open(tmp_path, 23, "/dev/null", NODE, name=None)
    has_open(tmp_path, 99, "/dev/nvidia01", "/dev/nvidia10", "/dev/nvidiactl")
    (tmp_path / "sys").mkdir()
    found = (Holder(pid=23, name="a process"), Holder(pid=4711, name="monitor"))
    assert holders(tmp_path, {NODE}) == found
    assert other_holders(tmp_path, {NODE}) == found


def test_no_nodes_have_no_holders(proc: Path) -> None:
    """A GPU without nodes of its own is not looked for."""
    assert holders(proc, ()) == ()


def test_a_process_that_has_ended_holds_nothing(tmp_path: Path) -> None:
    """Its folder may be there a moment longer than its files."""
    (tmp_path / "7").mkdir()
    assert holders(tmp_path, {NODE}) == ()


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder that anybody may read, and a process that may not do what root may."""
    own = os.geteuid()
    with TemporaryDirectory(prefix="dra-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        has_open(folder, 7, NODE, name="hidden")
        has_open(folder, 8, NODE, name="seen")
        (folder / "7/fd").chmod(0)
        if own == 0:
            os.seteuid(65534)
        yield folder
        os.seteuid(own)


def test_a_device_is_not_called_free_unseen(nobody: Path) -> None:
    """Where one process may not be looked into, whoever wants the device is told so; those that can be seen are named."""
    with pytest.raises(VendorError, match=r"hidden \(PID 7\) may not be looked into") as unknown:
        holders(nobody, {NODE})
    assert unknown.value.retryable
    assert [one.name for one in other_holders(nobody, {NODE})] == ["seen"]
