"""What a process costs, as the kernel counts it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident, its proportional part of shared pages, and the most that was ever resident."""

    resident_bytes: int
    proportional_bytes: int
    peak_bytes: int


def cpu_s(pid: int) -> float:
    """CPU time of all threads that the process ever had, to the nanosecond.

    The clock of another process, as clock_getcpuclockid(3) makes its number; /proc/<pid>/stat has hundredths of a second.
    """
    return time.clock_gettime((~pid << 3) | 2)


def memory(pid: int) -> Memory:
    """Its memory now."""
    status = _fields(Path(f"/proc/{pid}/status"))
    rollup = _fields(Path(f"/proc/{pid}/smaps_rollup"))
    return Memory(
        resident_bytes=status["VmRSS"] << 10,
        proportional_bytes=rollup["Pss"] << 10,
        peak_bytes=status["VmHWM"] << 10,
    )


def wake_ups(pid: int) -> int:
    """How often a thread that lives now gave the processor back by itself, and so was woken again."""
    statuses = Path(f"/proc/{pid}/task").glob("*/status")
    return sum(_fields(path)["voluntary_ctxt_switches"] for path in statuses)


def threads(pid: int) -> int:
    """How many threads it has."""
    return _fields(Path(f"/proc/{pid}/status"))["Threads"]


def _fields(path: Path) -> dict[str, int]:
    found = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()[:1]
        if number and number[0].isdigit():
            found[name] = int(number[0])
    return found
