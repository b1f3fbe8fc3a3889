"""Which processes of a host have a device node open: what has to end before the device can change hands, or its mode."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dra_driver.model.errors import VendorError

_DELETED = " (deleted)"
"""The kernel's word at paths that are gone: a container's own node may be, and the device is open all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process, by its number on the host. `is_ours`: it is the one that asks."""

    pid: int
    name: str
    is_ours: bool = False

    def __str__(self) -> str:
        return f"{self.name} (PID {self.pid})"


def holders(proc: Path, nodes: Collection[str]) -> tuple[Holder, ...]:
    """All processes with one of the nodes open, by number. `proc` is the host's /proc.

    A container may have the host's /dev elsewhere, so a node is known by how its path ends. VendorError where a process may
    not be looked into: nobody knows then whether the device is free.
    """
    found: list[Holder] = []
    for process in _processes(proc) if nodes else ():
        try:
            if _has_open(process, nodes):
                found.append(_holder(process))
        except PermissionError as error:
            raise VendorError(
                f"{_holder(process)} may not be looked into, so nobody knows whether it uses {', '.join(sorted(nodes))}; "
                "let this process run as root with the capability SYS_PTRACE",
                retryable=True,
            ) from error
    return tuple(found)


def other_holders(proc: Path, nodes: Collection[str]) -> tuple[Holder, ...]:
    """As `holders`, this process left out, as far as can be seen: good for naming culprits, not for calling a device free."""
    found: list[Holder] = []
    for process in _processes(proc):
        with suppress(PermissionError):
            if _has_open(process, nodes):
                found.append(_holder(process))
    return tuple(one for one in found if not one.is_ours)


def _processes(proc: Path) -> Iterator[Path]:
    pids = sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal())
    return (proc / str(pid) for pid in pids)


def _has_open(process: Path, nodes: Collection[str]) -> bool:
    """PermissionError where that may not be seen; a process, or a file of it, that goes meanwhile has nothing open."""
    ends = tuple(nodes)
    with suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in (process / "fd").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                if str(descriptor.readlink()).removesuffix(_DELETED).endswith(ends):
                    return True
    return False


def _holder(process: Path) -> Holder:
    try:
        name = (process / "comm").read_text().strip()
    except OSError:
        name = "a process"
    try:  # in a container too: the link leads to our number as whoever mounted this /proc counts
        own = (process.parent / "self").readlink().name
    except OSError:
        own = ""
    return Holder(pid=int(process.name), name=name, is_ours=process.name == own)
