"""Who has a GPU open. NVML counts work on the GPU only, and it is monitoring that keeps a mode from changing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from dra_driver.vendors.nvidia.nvml import Handle, Nvml


class GpuUsers(Protocol):
    """Asked only when a GPU turned out to be in use: the answer costs a walk over all processes."""

    def users(self, gpu: Handle) -> tuple[str, ...]:
        """`dcgm-exporter (pid 4711)` for each process that has the GPU open, as far as can be seen from here."""


class SwitchingNvml(Nvml, GpuUsers, Protocol):
    """What changing a GPU's mode takes."""


def device_users(proc: Path, device: str) -> tuple[str, ...]:
    """The processes that have the device file open, by pid; those that end meanwhile or may not be looked at are left out."""
    pids = sorted(int(folder.name) for folder in proc.glob("[1-9]*"))
    return tuple(f"{_name(proc, pid)} (pid {pid})" for pid in pids if device in _open(proc, pid))


def _open(proc: Path, pid: int) -> Iterator[str]:
    try:
        for descriptor in (proc / str(pid) / "fd").iterdir():
            yield str(descriptor.readlink())
    except OSError:
        return


def _name(proc: Path, pid: int) -> str:
    try:
        return (proc / str(pid) / "comm").read_text().strip()
    except OSError:
        return "a process"
