"""NVIDIA's container toolkit on the host: `nvidia-ctk` knows best which files of the driver a container needs."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dra_driver.model.errors import VendorError
from dra_driver.vendors.nvidia.driver_root import DriverRoot
from dra_driver.vendors.nvidia.toolkit_spec import ToolkitSpec

_USUAL_PATHS = (
    Path("/usr/bin/nvidia-ctk"),
    Path("/usr/local/nvidia/toolkit/nvidia-ctk"),  # where the GPU operator puts it
    Path("/usr/local/bin/nvidia-ctk"),
)
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOOKS_PROGRAM = "nvidia-cdi-hook"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolkit:
    """One nvidia-ctk, by its path on the host; another time of change means another program."""

    path: Path
    changed_ns: int

    def generate(self, root: DriverRoot, *, deadline_s: float) -> ToolkitSpec:
        """The spec that it makes of the driver at that root; VendorError if it fails, prints something else or takes too long.

        It runs on the host's root, with the host's libraries: in the plugin's image it would find neither them nor the driver.
        """
        command = [str(self.path), "cdi", "generate", "--format=json"]
        command.append(f"--driver-root={root.path}")
        hooks = self.path.with_name(_HOOKS_PROGRAM)
        if root.seen(hooks).exists():
            command.append(f"--nvidia-cdi-hook-path={hooks}")
        if root.host_root != Path("/"):
            command[:0] = ["chroot", str(root.host_root)]
        return ToolkitSpec.parse(self._run(command, deadline_s))

    def _run(self, command: list[str], deadline_s: float) -> bytes:
        """What the command prints; it and what it started are gone when this returns."""
        try:
            process = subprocess.Popen(  # noqa: S603 (paths of the host and of the settings; no shell)
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": f"{self.path.parent}:{_SEARCH_PATH}", "LC_ALL": "C"},
                start_new_session=True,
            )
        except OSError as error:
            raise VendorError(f"{self.path} cannot be run: {error.strerror}") from error
        with process:
            try:
                printed, said = process.communicate(timeout=deadline_s)
            except subprocess.TimeoutExpired as error:
                os.killpg(process.pid, signal.SIGKILL)
                raise VendorError(
                    f"{self.path} did not end within {deadline_s:g} s; run it by hand on the node"
                ) from error
        if process.returncode:
            words = said.decode(errors="replace").strip().splitlines()[-1:]
            raise VendorError(
                f"{self.path} ended with {process.returncode}: {' '.join(words)[:200]}; run it by hand on the node"
            )
        return printed


def find_toolkit(root: DriverRoot, configured: Path | None) -> Toolkit | None:
    """The configured nvidia-ctk, be it there or not, else the first of the usual ones; None where the host has none."""
    for path in (configured,) if configured else _USUAL_PATHS:
        try:
            return Toolkit(path=path, changed_ns=root.seen(path).stat().st_mtime_ns)
        except OSError:
            continue
    return Toolkit(path=configured, changed_ns=0) if configured else None
