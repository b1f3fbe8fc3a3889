"""Which container a process of this node runs in, as the host's /proc tells it.

The kubelet names the cgroups of pods, and the runtime names those of containers in them: with cgroups of version 1 or 2, by the
cgroupfs or the systemd driver, under containerd or CRI-O. All names have the pod's UID and, below it, the container's ID.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_CGROUP = re.compile(
    r"pod(?P<pod>[0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12})"
    r"(?:\.slice)?[/:](?:[a-z-]+[-:])?(?P<container>[0-9a-f]{64})"
)
"""`.../pod<UID>/<ID>`, `...-pod<UID>.slice/cri-containerd-<ID>.scope`, `...-pod<UID>.slice:cri-containerd:<ID>` and the like.

systemd's units cannot have dashes in names, so the UID has underscores there; UIDs of static pods have neither.
"""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Container:
    """A container of a pod; `id` without the runtime's name before it."""

    pod_uid: str
    id: str


class Containers:
    """Looks processes up below `host_root`."""

    def __init__(self, host_root: Path) -> None:
        self._proc = host_root / "proc"

    def of(self, pid: int) -> Container | None:
        """The process's container; None where it is in none, is gone, or this process does not see the host's processes.

        Who may make cgroups below a container's may name them with any bytes.
        """
        if not self.are_seen:
            return None
        try:
            names = (self._proc / str(pid) / "cgroup").read_text(errors="replace")
        except OSError:
            return None
        found = _CGROUP.search(names)
        if found is None:
            return None
        return Container(pod_uid=found["pod"].replace("_", "-"), id=found["container"])

    @cached_property
    def are_seen(self) -> bool:
        """Whether this process is in the host's PID namespace: elsewhere a number that the driver gives is nobody's, or another's.

        A process has one number in each namespace from that of its /proc down to its own: one, if they are the same.
        """
        try:
            status = (self._proc / "self/status").read_text()
        except OSError:
            return False
        numbers = re.search(r"^NSpid:(.*)$", status, re.MULTILINE)
        return numbers is not None and len(numbers[1].split()) == 1
