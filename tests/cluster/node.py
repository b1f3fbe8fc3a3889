"""A real node: kubelet and containerd with CDI, in namespaces of their own, so that nothing of them can be left behind.

Whatever they mount is in a mount namespace and whatever they start is in a process namespace; both end with one process,
the namespaces' first, which the kernel ends with ours. What the kubelet changes in the kernel is put back afterwards.
Pods use the host's network: no CNI plugin is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from tests.cluster.controlplane import ControlPlane
from tests.cluster.images import write_image
from tests.cluster.processes import free_ports, running, wait_until

IMAGE = "localhost/tests/busybox:1"
"""The image that pods may use: Debian's busybox."""

_START_S = 60.0
_PAUSE = "localhost/tests/pause:1"
_HARD_WIRED = ("/run", "/var/lib")
"""Where runc, shims and the kubelet's device manager write whatever they are told: the node has its own."""
_SYSCTLS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")


class Node:
    """One running node; everything that it writes is below `root`, whose name is short enough for sockets."""

    def __init__(self, plane: ControlPlane, name: str, root: Path, first_process: int) -> None:
        self.plane = plane
        self.name = name
        self.root = root
        self.cdi_dir = root / "cdi"
        self._first_process = first_process
        self._kubelet: ExitStack | None = None

    @property
    def kubelet_dir(self) -> Path:
        """The kubelet's own folder (on a usual node /var/lib/kubelet)."""
        return self.root / "kubelet"

    @property
    def registry_dir(self) -> Path:
        """Where plugins open their registration sockets."""
        return self.kubelet_dir / "plugins_registry"

    @property
    def log(self) -> str:
        """What all kubelets of this node have printed."""
        return (self.root / "kubelet.log").read_text(errors="replace")

    def start_kubelet(self) -> None:
        """Start it and wait until it answers; the node becomes Ready a little later."""
        port, health_port = free_ports(2)
        config = self.root / "kubelet.yaml"
        config.write_text(yaml.safe_dump(_kubelet_config(self, port, health_port)))
        command: list[str | Path] = [
            self.plane.programs.kubelet,
            f"--config={config}",
            f"--kubeconfig={self.plane.kubeconfig_of(f'node:{self.name}')}",
            f"--root-dir={self.kubelet_dir}",
            f"--cert-dir={self.root / 'pki'}",
            f"--hostname-override={self.name}",
        ]
        log = self.root / "kubelet.log"
        with ExitStack() as stack:
            process = stack.enter_context(self.running_inside(command, log))
            wait_until(lambda: _is_healthy(health_port), process, log, within_s=_START_S)
            self._kubelet = stack.pop_all()

    def stop_kubelet(self) -> None:
        """Stop it; containers go on."""
        if self._kubelet is not None:
            self._kubelet.close()
            self._kubelet = None

    @contextmanager
    def running_inside(
        self, command: Sequence[str | Path], log: Path
    ) -> Iterator[subprocess.Popen[bytes]]:
        """The program runs in the node's namespaces while the block does."""
        path = f"{self.plane.programs.containerd}:{os.environ['PATH']}"
        with running(
            [*self._entering(), *command], log, env=os.environ | {"PATH": path}
        ) as entering:
            try:
                yield entering
            finally:
                # nsenter waits for the program, and does not pass on signals.
                for child in _children(entering.pid):
                    os.kill(child, signal.SIGTERM)
                entering.wait(20)

    def call(self, *command: str | Path) -> str:
        """Run a program in the node's namespaces; what it prints. CalledProcessError where it fails."""
        result = subprocess.run(
            [*self._entering(), *command], check=True, capture_output=True, text=True
        )
        return result.stdout

    def ctr(self, *arguments: str | Path) -> str:
        """Call containerd's own client, in the namespace of the kubelet's containers."""
        address = self.root / "containerd.sock"
        program = self.plane.programs.containerd / "ctr"
        return self.call(program, "--address", address, "--namespace", "k8s.io", *arguments)

    def _entering(self) -> list[str | Path]:
        return ["nsenter", f"--target={self._first_process}", "--mount", "--pid", "--"]


@contextmanager
def running_node(plane: ControlPlane, name: str) -> Iterator[Node]:
    """A node of the cluster, healthy, while the block runs; needs root. Afterwards the machine is as it was before."""
    root = Path(tempfile.mkdtemp(prefix="node-", dir="/tmp"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root)
        stack.enter_context(_unchanged_sysctls())
        stack.enter_context(_control_groups(root.name))
        first = stack.enter_context(_namespaces(root / "namespaces.log"))
        node = Node(plane, name, root, first)
        for folder in _HARD_WIRED:
            node.call("mount", "-t", "tmpfs", "none", folder)
        for path in (node.cdi_dir, node.registry_dir, root / "cni"):
            path.mkdir(parents=True)
        stack.enter_context(_running_containerd(node))
        stack.callback(node.stop_kubelet)
        node.start_kubelet()
        yield node


@contextmanager
def _namespaces(log: Path) -> Iterator[int]:
    """New mount and process namespaces while the block runs; the id of their first process, as seen from here."""
    flags = ["--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]
    with running(["unshare", *flags, "sleep", "infinity"], log) as process:
        wait_until(lambda: bool(_children(process.pid)), process, log, within_s=5)
        first = _children(process.pid)[0]
        try:
            yield first
        finally:
            # The kernel ends all others with it, and only then is it gone for unshare, which waits for it.
            os.kill(first, signal.SIGKILL)
            process.wait(20)


@contextmanager
def _running_containerd(node: Node) -> Iterator[None]:
    config = node.root / "containerd.toml"
    config.write_text(_containerd_config(node.root, node.cdi_dir))
    network = {"cniVersion": "1.0.0", "name": "none", "plugins": [{"type": "loopback"}]}
    (node.root / "cni" / "net.conflist").write_text(json.dumps(network))
    archive = node.root / "image.tar"
    write_image(archive, names=(IMAGE, _PAUSE), command=("sleep", "infinity"))
    log = node.root / "containerd.log"
    program = node.plane.programs.containerd / "containerd"
    with node.running_inside([program, f"--config={config}"], log) as process:
        socket = node.root / "containerd.sock"
        wait_until(socket.exists, process, log, within_s=_START_S)
        node.ctr("images", "import", archive)
        yield


def _containerd_config(root: Path, cdi_dir: Path) -> str:
    return f"""
version = 3
root = "{root}/containerd"
state = "{root}/run"
imports = []
[grpc]
  address = "{root}/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{_PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
  cdi_spec_dirs = ["{cdi_dir}"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{root}/cni"]
    conf_dir = "{root}/cni"
    use_internal_loopback = true
"""


def _kubelet_config(node: Node, port: int, health_port: int) -> dict[str, object]:
    """Nothing of the machine is watched or reserved; cgroup v1 is allowed, as test machines still have it."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "port": port,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": health_port,
        "readOnlyPort": 0,
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}},
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{node.root}/containerd.sock",
        "podLogsDir": str(node.root / "logs"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.root.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
    }


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _children(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return list(map(int, path.read_text().split())) if path.exists() else []


@contextmanager
def _unchanged_sysctls() -> Iterator[None]:
    """What the kubelet sets in the kernel is put back."""
    before = {
        path: path.read_text() for name in _SYSCTLS if (path := Path("/proc/sys", name)).exists()
    }
    try:
        yield
    finally:
        for path, text in before.items():
            if path.read_text() != text:
                path.write_text(text)


@contextmanager
def _control_groups(name: str) -> Iterator[None]:
    """A control group of that name in every hierarchy while the block runs; all below it goes with it."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    groups = [Path(mount[1], name) for mount in mounts if mount[2] in {"cgroup", "cgroup2"}]
    for group in groups:
        group.mkdir()
    try:
        yield
    finally:
        for group in groups:
            for folder, _, _ in os.walk(group, topdown=False):
                Path(folder).rmdir()
