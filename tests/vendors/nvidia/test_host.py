"""What a container gets on a host with a driver, through the backend."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dra_driver.cdi.spec import shared_spec
from dra_driver.model.device import Target
from dra_driver.model.errors import VendorError
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.driver_edits import DriverEdits
from dra_driver.vendors.nvidia.driver_root import DriverRoot
from dra_driver.vendors.nvidia.driver_search import DriverSearch
from dra_driver.vendors.nvidia.host import DriverHost
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from tests.vendors.nvidia.driver_tree import (
    DRIVER,
    FakeToolkit,
    build_driver,
    build_nodes,
    settled,
    toolkit_spec,
)

Simulate = Callable[..., SimulatedNvml]

GPU = "0000:1b:00.0"
COMMON = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")


class Host:
    """A host's root in a folder; `backend` is the plugin's on it."""

    def __init__(self, folder: Path, driver_root: str = "/") -> None:
        self.here = folder / "host"
        self.root = DriverRoot(configured=Path(driver_root), host_root=self.here)
        build_driver(self.root.here)
        (self.here / "proc").mkdir()
        (self.here / "proc/devices").write_text("Character devices:\n  1 mem\n")
        self._kept_in = folder / "kept.json"

    def backend(self, nvml: SimulatedNvml, toolkit: Path | None = None) -> NvidiaBackend:
        """As the process builds it; a `toolkit` runs on this machine's root, and sees the driver where it is here."""
        root = DriverRoot(configured=self.here) if toolkit else self.root
        self.driver = DriverEdits(DriverSearch(root, kept_in=self._kept_in, toolkit=toolkit))
        return NvidiaBackend(nvml, DriverHost(self.root, self.driver))

    def rendering(self, address: str, *names: str) -> None:
        """What the kernel says of the GPU's nodes for rendering, and the nodes."""
        for name in names:
            (self.here / "sys/bus/pci/devices" / address / "drm" / name).mkdir(parents=True)
            build_nodes(self.here, f"/dev/dri/{name}")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """One with the driver's common nodes."""
    host = Host(tmp_path)
    build_nodes(host.here, *COMMON)
    return host


def nodes(backend: NvidiaBackend, target: Target) -> list[tuple[str, str | None]]:
    """Path and host path of the container's device nodes."""
    return [(node.path, node.host_path) for node in backend.edits(target).device_nodes]


def test_a_whole_gpu_has_its_own_nodes_and_the_common_ones(host: Host, simulate: Simulate) -> None:
    """By minor number and by PCI address, nothing of its neighbour; each where it is on the host."""
    build_nodes(host.here, "/dev/nvidia0", "/dev/nvidia1")
    host.rendering(GPU, "card0", "renderD128")
    host.rendering("0000:43:00.0", "card1", "renderD129", "controlD65")
    found = nodes(host.backend(simulate(count=2)), Target(gpu="0000:43:00.0"))
    own = ("/dev/nvidia1", "/dev/dri/card1", "/dev/dri/renderD129")
    assert {path for path, _ in found} == {*COMMON, *own}
    assert len(found) == len(COMMON) + len(own)
    assert {host_path for _, host_path in found} == {None}


def test_a_partition_has_its_rights_and_no_display(host: Host, simulate: Simulate) -> None:
    """The parent's node and the two capability nodes; nodes for rendering belong to the whole GPU."""
    caps = ("/dev/nvidia-caps/nvidia-cap12", "/dev/nvidia-caps/nvidia-cap13")
    build_nodes(host.here, "/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap14", *caps)
    host.rendering(GPU, "card0", "renderD128")
    nvml = simulate(instances=[{"profile": "1g.10gb", "start": 6}])
    found = nodes(host.backend(nvml), Target(gpu=GPU, instance="gi-1/ci-0"))
    assert {path for path, _ in found} == {*COMMON, "/dev/nvidia0", *caps}


def test_what_the_host_lacks_is_left_out_or_refused(host: Host, simulate: Simulate) -> None:
    """A module that is not loaded is done without; without the GPU's own module the container would have nothing."""
    backend, target = host.backend(simulate()), Target(gpu=GPU)
    with pytest.raises(VendorError, match="/dev/nvidia0 is not on this node, and") as refused:
        backend.edits(target)
    assert refused.value.retryable
    build_nodes(host.here, "/dev/nvidia0")
    (host.here / "dev/nvidia-modeset").unlink()
    (host.here / "dev/nvidia-uvm").unlink()
    paths = [path for path, _ in nodes(backend, target)]
    assert paths == ["/dev/nvidiactl", "/dev/nvidia-uvm-tools", "/dev/nvidia0"]


@pytest.mark.parametrize("name", ["nvidia", "nvidia-frontend"])
def test_nodes_that_nobody_has_made_yet_have_numbers(
    tmp_path: Path, simulate: Simulate, name: str
) -> None:
    """As the kernel gives them to modules that are loaded: a partition's nodes come into being when they are first opened."""
    host = Host(tmp_path)
    (host.here / "proc/devices").write_text(
        "Character devices:\n  1 mem\n"
        f"195 {name}\n236 nvidia-caps\n508 nvidia-uvm\n\nBlock devices:\n  7 nvidia\n"
    )
    nvml = simulate(instances=[{"profile": "1g.10gb", "start": 6}])
    edits = host.backend(nvml).edits(Target(gpu=GPU, instance="gi-1/ci-0"))
    assert {node.path: node.numbers for node in edits.device_nodes} == {
        "/dev/nvidiactl": (195, 255),
        "/dev/nvidia0": (195, 0),
        "/dev/nvidia-uvm": (508, 0),
        "/dev/nvidia-uvm-tools": (508, 1),
        "/dev/nvidia-caps/nvidia-cap12": (236, 12),
        "/dev/nvidia-caps/nvidia-cap13": (236, 13),
    }


def test_nodes_of_a_driver_container(tmp_path: Path, simulate: Simulate) -> None:
    """Those that only its /dev has come from there; the container sees them where they belong."""
    host = Host(tmp_path, "/run/nvidia/driver")
    build_nodes(host.root.here, "/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm")
    build_nodes(host.here, "/dev/nvidia-uvm")
    assert nodes(host.backend(simulate()), Target(gpu=GPU)) == [
        ("/dev/nvidiactl", "/run/nvidia/driver/dev/nvidiactl"),
        ("/dev/nvidia-uvm", None),
        ("/dev/nvidia0", "/run/nvidia/driver/dev/nvidia0"),
    ]


def test_the_drivers_files_are_what_nvidia_ctk_says(
    host: Host, simulate: Simulate, tmp_path: Path
) -> None:
    """Asked for at the first look at a GPU; the same for all targets, and a CDI spec that runtimes take."""
    toolkit = FakeToolkit(tmp_path / "bin/nvidia-ctk")
    toolkit.prints(json.dumps(toolkit_spec(str(host.here))))
    backend = host.backend(simulate(count=2), toolkit.path)
    assert len(discover(backend).gpus) == 2
    settled(host.driver)
    assert len(toolkit.calls) == 1
    shared = backend.shared()
    assert shared is not None
    common = shared_spec(shared)["containerEdits"]
    assert common["env"][1] == "NVIDIA_VISIBLE_DEVICES=void"
    assert [len(common[part]) for part in ("mounts", "hooks")] == [2, 4]
    assert common["mounts"][0]["hostPath"].startswith(str(host.here))
    assert backend.shared() == shared
    assert len(toolkit.calls) == 1


def test_a_reloaded_drivers_files_have_another_name(host: Host, simulate: Simulate) -> None:
    """So what was prepared with the former ones is not taken for prepared with these."""
    backend = host.backend(simulate())
    before = backend.shared()
    build_driver(host.here, "590.48.01")
    (host.here.parent / "gpus/faults.json").write_text('{"driver": {"version": "590.48.01"}}')
    now = backend.shared()
    assert before is not None
    assert now is not None
    for shared, version in ((before, DRIVER), (now, "590.48.01")):
        paths = {mount.container_path for mount in shared.edits.mounts}
        assert f"/usr/local/nvidia/lib64/libcuda.so.{version}" in paths
    assert before.name != now.name


def test_simulated_gpus_have_no_driver_around_them(simulate: Simulate) -> None:
    """Nothing is shared, and every node is taken to be there."""
    backend = NvidiaBackend(simulate())
    assert backend.shared() is None
    assert backend.edits(Target(gpu=GPU)).device_nodes
