"""The moments at which a plugin process can be made to die, generated from what it does to the outside.

A point is written `<Port>.<what>.<before|after>:<count>`: the count-th time that the process does this. Ports and methods come
from the Protocols of `ports.py`; a hardware change counts by its kind, so `Backend.CreateStage.after:2`. Beside the ports there
are `Reply` (the service's answers), `Files` (system calls on journal and CDI files) and `Sdk` (calls inside the simulated
library, which die by its own `faults.json`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, get_args

from dra_driver.model.device import PartitionChange
from dra_driver.ports import Backend, CdiStore, ClaimStore, KubeApi
from dra_driver.vendors.nvidia.nvml import Nvml
from dra_driver.vendors.nvidia.nvml_activity import NvmlActivity

ENVIRONMENT: Final = "DRA_TEST_KILL_AT"
"""The variable that names the point at which a process dies."""
TRACE: Final = "DRA_TEST_KILL_TRACE"
"""The variable that names a file, to which each point that a process passes is appended, one a line."""

_POINT = re.compile(r"(\w+)\.(\w+)\.(before|after):(\d+)")

CHANGING: Final[Mapping[type, frozenset[str]]] = {
    Backend: frozenset({"partition"}),
    ClaimStore: frozenset(
        {"load", "begin", "step", "finish", "sync", "releasing", "forget", "rebuild"}
    ),  # `load` removes former boots and sets damaged files aside
    CdiStore: frozenset({"write", "remove"}),
    KubeApi: frozenset({"create", "replace", "patch", "delete"}),
    Nvml: frozenset(
        {
            "set_mig_mode",
            "create_gpu_instance",
            "destroy_gpu_instance",
            "create_compute_instance",
            "destroy_compute_instance",
        }
    ),
    NvmlActivity: frozenset(),  # samples are memory of the process's own
}
"""The methods of each Protocol that change something outside: a process may die before and after each."""

LOOKING: Final[Mapping[type, frozenset[str]]] = {
    Backend: frozenset(
        {"addresses", "read", "identify", "edits", "shared", "health", "activity", "close"}
    ),
    ClaimStore: frozenset({"read_all", "read", "note", "noted"}),
    CdiStore: frozenset(
        {"holds", "note", "claims", "share", "shares", "sweep"}
    ),  # files of shared edits are no claim's: one too many, or one that is made anew, harms nobody
    KubeApi: frozenset({"get", "list", "watch", "server_version"}),
    Nvml: frozenset(
        {
            *("close", "driver_version", "cuda_version", "pci_addresses", "gpu_by_address"),
            *("pci_device_id", "pci_place", "name", "uuid", "minor", "architecture"),
            *("compute_capability", "memory_bytes", "core_count", "mig_mode"),
            *("is_mig_resetless", "gpu_profile", "placements", "gpu_instances", "gpu_instance"),
            *("gpu_instance_info", "compute_profile", "compute_instances", "compute_instance"),
            *("compute_instance_info", "mig_uuids", "capability_minor"),
        }
    ),
    NvmlActivity: frozenset(
        {
            *("mig_devices", "utilization", "memory_use", "power_milliwatts"),
            *("temperature_celsius", "clock_reasons", "processes", "process_samples"),
            *("has_gpm", "gpm_sample", "gpm_percentages", "gpm_free"),
        }
    ),
}
"""The methods that change nothing: a death there is the same as one at the change before or after it."""

REPLIES: Final = ("prepare", "unprepare")
SYSTEM_CALLS: Final = ("mkdir", "open", "link", "rename", "remove")
"""Of journal and CDI files, before they happen: what an audit hook sees. `sync` is seen before and after."""


@dataclass(frozen=True, slots=True, order=True)
class KillPoint:
    """One moment of a process's life."""

    port: str
    what: str
    when: str
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> KillPoint:
        """The point that is written so; ValueError for anything else."""
        match = _POINT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no kill point; write it like ClaimStore.begin.after:1")
        port, what, when, count = match.groups()
        return cls(port, what, when, int(count))

    @property
    def place(self) -> str:
        """The point without its count."""
        return f"{self.port}.{self.what}.{self.when}"

    def __str__(self) -> str:
        return f"{self.place}:{self.count}"


def methods(protocol: type) -> frozenset[str]:
    """The names of all methods that the Protocol asks for."""
    return frozenset(
        name for name, value in vars(protocol).items() if callable(value) and name[0] != "_"
    )


def hardware_changes() -> tuple[str, ...]:
    """The kinds of hardware change that the executor's plans are made of."""
    return tuple(kind.__name__ for kind in get_args(PartitionChange))


def places() -> Iterator[str]:
    """Every place where a process may be made to die, counts left out."""
    for port in (Backend, ClaimStore, CdiStore, KubeApi):
        for method in sorted(CHANGING[port]):
            whats = hardware_changes() if (port, method) == (Backend, "partition") else (method,)
            yield from (f"{port.__name__}.{what}.{when}" for what in whats for when in _WHEN)
    yield from (f"Reply.{what}.{when}" for what in REPLIES for when in _WHEN)
    yield from (f"Files.{call}.before" for call in (*SYSTEM_CALLS, "sync"))
    yield "Files.sync.after"
    yield from (str(point).removesuffix(":1") for point in sdk_points())


def sdk_points() -> Iterator[KillPoint]:
    """Those inside the simulated library."""
    for call in sorted(CHANGING[Nvml]):
        yield from (KillPoint("Sdk", call, when) for when in _WHEN)


_WHEN: Final = ("before", "after")
