from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.config.machine import GpuSpec, InstanceSpec, Machine
from dra_driver.model.device import Vendor
from dra_driver.model.errors import MachineError
from dra_driver.vendors.amd.backend import AmdBackend
from dra_driver.vendors.amd.sdk import Sysfs
from dra_driver.vendors.amd.simulated import build_tree
from dra_driver.vendors.discovery import discover


def files(tree: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(tree)): (path.stat().st_mtime_ns, path.read_text())
        for path in tree.rglob("*")
        if path.is_file()
    }


def machine_of(*specs: GpuSpec) -> Machine:
    return Machine(
        api_version="gpu.dra-driver.dev/v1alpha1", kind="Machine", name="test", gpus=specs
    )


def amd(model: str = "MI300X", count: int = 1, mode: str | None = None) -> GpuSpec:
    return GpuSpec(vendor=Vendor.AMD, model=model, count=count, mode=mode)


def uuids(machine: Machine, node: str, folder: Path) -> list[str]:
    inventory = discover(AmdBackend(Sysfs(build_tree(machine, folder, node=node))))
    return [gpu.uuid for gpu in inventory.gpus]


def test_building_twice_changes_nothing(tmp_path: Path) -> None:
    """A second run rewrites no file, so that a reader meanwhile sees whole files."""
    machine = machine_of(amd(count=2))
    before = files(build_tree(machine, tmp_path, node="node-a"))
    assert files(build_tree(machine, tmp_path, node="node-a")) == before


def test_ids_follow_from_the_node(tmp_path: Path) -> None:
    """The same node has the same UUIDs wherever it is built; another node has others."""
    machine = machine_of(amd(count=4))
    first = uuids(machine, "node-a", tmp_path / "1")
    assert uuids(machine, "node-a", tmp_path / "2") == first
    assert not set(uuids(machine, "node-b", tmp_path / "3")) & set(first)


def test_sixteen_gpus_of_several_models_have_their_own_places(tmp_path: Path) -> None:
    """Addresses and render nodes stay unique beyond the eight of one platform; other vendors' GPUs are not ours."""
    machine = machine_of(
        GpuSpec(vendor=Vendor.NVIDIA, model="H100-SXM5-80GB", count=2),
        amd(count=8),
        amd("MI325X", count=4),
        amd("MI355X", count=4),
    )
    sysfs = Sysfs(build_tree(machine, tmp_path, node="node-a"))
    inventory = discover(AmdBackend(sysfs))
    assert len(inventory.gpus) == 16
    assert len({node.render_minor for node in sysfs.kfd_nodes().values()}) == 16
    assert inventory.gpus[15].pci_address == "0001:e5:00.0"
    assert (inventory.gpus[15].architecture, inventory.gpus[15].compute_units) == ("gfx950", 256)


def test_a_partitioned_gpu_has_a_node_for_each_partition(tmp_path: Path) -> None:
    """In CPX mode the KFD lists eight nodes, which the reader joins to one GPU by its first partition."""
    machine = machine_of(amd(mode="CPX"), amd())
    sysfs = Sysfs(build_tree(machine, tmp_path, node="node-a"))
    assert len(list((tmp_path / "class/kfd/kfd/topology/nodes").iterdir())) == 2 + 8 + 1
    assert {address: node.render_minor for address, node in sysfs.kfd_nodes().items()} == {
        "0000:05:00.0": 128,
        "0000:26:00.0": 136,
    }
    assert [fault.pci_address for fault in discover(AmdBackend(sysfs)).faults] == ["0000:05:00.0"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (amd("MI42"), "'MI42' is not one of MI300X"),
        (amd(mode="NPS1"), "mode 'NPS1' of MI300X is not one of SPX"),
        (
            GpuSpec(
                vendor=Vendor.AMD, model="MI300X", instances=(InstanceSpec(profile="x", start=0),)
            ),
            "lists instances",
        ),
    ],
)
def test_an_impossible_gpu_is_refused(tmp_path: Path, spec: GpuSpec, message: str) -> None:
    """The error names machine, GPU, value and the possible ones, and nothing is written."""
    with pytest.raises(MachineError, match=message):
        build_tree(machine_of(spec), tmp_path, node="node-a")
    assert list(tmp_path.iterdir()) == []
