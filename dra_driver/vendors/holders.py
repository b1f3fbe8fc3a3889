"""Which processes of a host have a device node open: what has to end before the device can change hands."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path


def holders(proc: Path, nodes: Collection[str]) -> tuple[str, ...]:
    """`name (PID 7)` of every process with one of the nodes open, by number. `proc` is the host's /proc.

    A container may have the host's /dev elsewhere, so a node is known by how its path ends. A process that ends, or that may
    not be looked into, while this looks is passed over.
    """
    ends = tuple(nodes)
    processes = sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal())
    found = (pid for pid in processes if any(_opens(proc / str(pid), ends)))
    return tuple(f"{_name(proc / str(pid))} (PID {pid})" for pid in found)


def _opens(process: Path, ends: tuple[str, ...]) -> Iterator[bool]:
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                yield str(descriptor.readlink()).endswith(ends)


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a process"
