"""Who has a GPU open, read from a proc folder."""

from __future__ import annotations

from pathlib import Path

from dra_driver.vendors.nvidia.users import device_users


def process(proc: Path, pid: int, name: str | None, *opened: str) -> None:
    fds = proc / str(pid) / "fd"
    fds.mkdir(parents=True)
    for number, target in enumerate(opened):
        (fds / str(number)).symlink_to(target)
    if name is not None:
        (proc / str(pid) / "comm").write_text(f"{name}\n")


def test_processes_with_the_device_open_are_named(tmp_path: Path) -> None:
    """Each once and by pid; other GPUs' users, folders that are no process, and processes that have ended are left out."""
    process(tmp_path, 4711, "dcgm", "/dev/null", "/dev/nvidia1", "/dev/nvidia1")
    process(tmp_path, 23, None, "/dev/nvidia1")
    process(tmp_path, 99, "other", "/dev/nvidia10", "/dev/nvidiactl")
    (tmp_path / "100").mkdir()
    (tmp_path / "self").mkdir()
    assert device_users(tmp_path, "/dev/nvidia1") == ("a process (pid 23)", "dcgm (pid 4711)")
    assert device_users(tmp_path, "/dev/nvidia2") == ()
