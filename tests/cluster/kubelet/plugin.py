"""Our plugin as a process on a real node, and what it keeps there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack

from dra_driver.model.names import DRIVER_NAME
from tests.cluster.kubelet.hardware import Hardware
from tests.cluster.node import Node
from tests.cluster.processes import running, stop, wait_until

_START_S = 30.0


class Plugin:
    """The plugin of a node with simulated GPUs, in the folders that a DaemonSet would mount."""

    def __init__(
        self,
        node: Node,
        access: Mapping[str, str],
        hardware: Hardware,
        *,
        pod_uid: str | None = None,
    ) -> None:
        self.node = node
        self.access = access
        self.hardware = hardware
        self.data_dir = node.kubelet_dir / "plugins" / DRIVER_NAME
        self._log = node.root / f"plugin{pod_uid or ''}.log"
        self._settings = {
            "node-name": node.name,
            "data-dir": self.data_dir,
            "registry-dir": node.registry_dir,
            "cdi-dir": node.cdi_dir,
            "simulation-dir": hardware.folder,
            "machine": hardware.machine,
            "pod-resources-socket": node.kubelet_dir / "pod-resources" / "kubelet.sock",
            **({"pod-uid": pod_uid} if pod_uid else {}),
            **access,
        }
        self._running: ExitStack | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> list[dict[str, object]]:
        """What all plugins of this node have said; a line that is only half there is none yet."""
        whole, _, _ = self._log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def said(self, event: str) -> int:
        """How often that was said."""
        return sum(line["event"] == event for line in self.log) if self._log.exists() else 0

    def start(self) -> None:
        """Start a process and wait until it serves and the kubelet has registered it."""
        before = self.said("registered with the kubelet")
        command = [sys.executable, "-m", "kubelet_plugin", "run"]
        flags = [f"--{name}={value}" for name, value in self._settings.items()]
        with ExitStack() as stack:
            process = stack.enter_context(running([*command, *flags], self._log))
            wait_until(
                lambda: self.said("registered with the kubelet") > before,
                process,
                self._log,
                within_s=_START_S,
            )
            self._process, self._running = process, stack.pop_all()

    def stop(self) -> int:
        """End it in order; its exit code."""
        assert self._process is not None
        assert self._running is not None
        stop(self._process, within_s=30)
        self._running.close()
        return self._process.returncode

    def kill(self) -> None:
        """End it where it stands."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """No process is left."""
        if self._running is not None:
            self._running.close()

    def leftovers(self) -> list[str]:
        """What there is of claims: CDI files, records, and the GPU instances made for them, asked of the hardware."""
        records = [*(self.data_dir / "claims").glob("*/*"), *self.node.cdi_dir.iterdir()]
        return [*map(str, records), *self.hardware.made()]
