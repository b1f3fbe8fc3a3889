"""The process's own metrics, under the names that Prometheus' client libraries give them (`process_*`), from /proc."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from dra_driver.observe.series import Family, Level, Series

_PAGE_BYTES = resource.getpagesize()
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def process_series(proc: Path = Path("/proc")) -> tuple[Series, ...]:
    """Processor time, memory, descriptors and start of this process, each read when it is scraped."""
    read = partial(_fields, proc / "self/stat")
    boot_s = _boot_time_s(proc / "stat")
    soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    readings: list[tuple[Family, Callable[[], float]]] = [
        (_CPU, lambda: (int(read()[11]) + int(read()[12])) / _TICKS_PER_S),
        (_RESIDENT, lambda: int(read()[21]) * _PAGE_BYTES),
        (_VIRTUAL, lambda: int(read()[20])),
        (_START, lambda: boot_s + int(read()[19]) / _TICKS_PER_S),
        (_OPEN, lambda: sum(1 for _ in (proc / "self/fd").iterdir())),
        (_LIMIT, lambda: soft_limit),
    ]
    return tuple(Level(family, partial(_single, value)) for family, value in readings)


def _single(value: Callable[[], float]) -> Mapping[tuple[str, ...], float]:
    return {(): value()}


def _fields(stat: Path) -> list[str]:
    """What follows the program's name, which may hold blanks and brackets: `state` is the first (proc(5))."""
    return stat.read_text(errors="replace").rpartition(")")[2].split()


def _boot_time_s(stat: Path) -> float:
    lines = (line.split() for line in stat.read_text().splitlines())
    return next(float(words[1]) for words in lines if words[0] == "btime")


_CPU = Family(
    name="process_cpu_seconds_total",
    kind="counter",
    meaning="Processor time that the plugin has used, in user and in kernel mode.",
)
_RESIDENT = Family(
    name="process_resident_memory_bytes", kind="gauge", meaning="Memory that the plugin occupies."
)
_VIRTUAL = Family(
    name="process_virtual_memory_bytes", kind="gauge", meaning="Address space that is mapped."
)
_START = Family(
    name="process_start_time_seconds",
    kind="gauge",
    meaning="When the process started, in seconds since 1970.",
)
_OPEN = Family(name="process_open_fds", kind="gauge", meaning="Open file descriptors.")
_LIMIT = Family(name="process_max_fds", kind="gauge", meaning="How many it may have.")
