"""Our plugin as a process on a real node, and what it keeps there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from dra_driver.config.machine import load_machine
from dra_driver.model.names import DRIVER_NAME
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from tests.cluster.node import Node
from tests.cluster.processes import running, stop, wait_until

_START_S = 30.0
_MACHINE = """
apiVersion: gpu.dra-driver.dev/v1alpha1
kind: Machine
name: two-vendors
gpus:
  - {vendor: nvidia, model: H100-SXM5-80GB, count: 4}
  - {vendor: amd, model: MI300X, count: 2}
"""


class Plugin:
    """The plugin of a node with simulated GPUs of both vendors, in the folders that a DaemonSet would mount."""

    def __init__(
        self, node: Node, access: Mapping[str, str], *, pod_uid: str | None = None
    ) -> None:
        self.node = node
        self.access = access
        self.data_dir = node.kubelet_dir / "plugins" / DRIVER_NAME
        self.simulation_dir = node.root / "hardware"
        self._machine = str(node.root / "machine.yaml")
        Path(self._machine).write_text(_MACHINE)
        self._log = node.root / f"plugin{pod_uid or ''}.log"
        self._settings = {
            "node-name": node.name,
            "data-dir": self.data_dir,
            "registry-dir": node.registry_dir,
            "cdi-dir": node.cdi_dir,
            "simulation-dir": self.simulation_dir,
            "machine": self._machine,
            "pod-resources-socket": node.kubelet_dir / "pod-resources" / "kubelet.sock",
            **({"pod-uid": pod_uid} if pod_uid else {}),
            **access,
        }
        self._running: ExitStack | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> list[dict[str, object]]:
        """What all plugins of this node have said."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

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

    def instances(self) -> list[str]:
        """The GPU instances that exist, asked of the simulated hardware."""
        folder = self.simulation_dir / "nvidia"
        nvml = SimulatedNvml(load_machine(self._machine), node=self.node.name, state_dir=folder)
        gpus = discover(NvidiaBackend(nvml)).gpus
        return [f"{gpu.pci_address}: {one.profile}" for gpu in gpus for one in gpu.instances]

    def leftovers(self) -> list[str]:
        """What there is of claims: CDI files, records, GPU instances."""
        records = [*(self.data_dir / "claims").glob("*/*"), *self.node.cdi_dir.iterdir()]
        return [*map(str, records), *self.instances()]
