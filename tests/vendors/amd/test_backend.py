from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dra_driver.config.machine import load_machine
from dra_driver.model.device import SetMode, Target, Vendor
from dra_driver.model.edits import ContainerEdits, DeviceNode
from dra_driver.model.errors import VendorError
from dra_driver.ports import Backend
from dra_driver.vendors.amd.backend import AmdBackend
from dra_driver.vendors.amd.sdk import Sysfs
from dra_driver.vendors.amd.simulated import build_tree
from dra_driver.vendors.discovery import discover

FIRST, SECOND = "0000:05:00.0", "0000:26:00.0"


def device(tree: Path, address: str = FIRST) -> Path:
    return (tree / "bus/pci/drivers/amdgpu" / address).resolve()


def first_kfd_properties(tree: Path) -> Path:
    return tree / "class/kfd/kfd/topology/nodes/2/properties"


def test_the_shipped_machine_is_eight_mi300x(tmp_path: Path) -> None:
    """The machine 8xmi300x is discovered as eight whole GPUs with the figures of the product."""
    machine = load_machine("8xmi300x")
    backend: Backend = AmdBackend(Sysfs(build_tree(machine, tmp_path, node="node-a")))
    inventory = discover(backend)
    assert (inventory.vendor, inventory.faults) == (Vendor.AMD, ())
    assert [gpu.index for gpu in inventory.gpus] == list(range(8))
    assert len({gpu.uuid for gpu in inventory.gpus}) == 8
    assert [gpu.numa_node for gpu in inventory.gpus] == [0] * 4 + [1] * 4
    assert {gpu.memory_bytes for gpu in inventory.gpus} == {196_592 * 2**20}
    assert {gpu.compute_units for gpu in inventory.gpus} == {304}
    assert {gpu.architecture for gpu in inventory.gpus} == {"gfx942"}


def test_a_gpu_says_everything_that_sysfs_tells(backend: AmdBackend) -> None:
    """Product, driver, place and mode come from the tree; partitioning stays unknown."""
    gpu = discover(backend).gpus[1]
    assert (gpu.pci_address, gpu.product_name) == (SECOND, "AMD Instinct MI300X OAM")
    assert (gpu.pcie_root, gpu.driver_version) == ("pci0000:20", "6.12.12")
    assert dict(gpu.extras) == {"computeMode": "SPX"}
    assert (gpu.partitioning, gpu.instances) == (None, ())


def test_edits_are_the_compute_device_the_render_node_and_the_name(backend: AmdBackend) -> None:
    """A container gets /dev/kfd, its own render node and its variable, and nothing else."""
    uuid = discover(backend).gpus[1].uuid
    assert backend.edits(Target(gpu=SECOND)) == ContainerEdits(
        env=(("DRA_DEVICE_0000_26_00_0", uuid),),
        device_nodes=(DeviceNode(path="/dev/kfd"), DeviceNode(path="/dev/dri/renderD136")),
    )


def test_partitions_are_refused_by_name(backend: AmdBackend) -> None:
    """Neither a mode change nor an instance is accepted, and the answer says that AMD lacks it yet."""
    with pytest.raises(VendorError, match="AMD repartitioning is not supported yet") as refused:
        backend.partition(SetMode(gpu=FIRST, mode="CPX"))
    assert not refused.value.retryable
    with pytest.raises(VendorError, match="no partition 'xcp-1'"):
        backend.edits(Target(gpu=FIRST, instance="xcp-1"))
    with pytest.raises(VendorError, match="no partition 'xcp-1'"):
        backend.identify(Target(gpu=FIRST, instance="xcp-1"))


def test_hardware_is_known_by_its_uuid(tree: Path, backend: AmdBackend) -> None:
    """As discovery reports it; another board in the same slot is another one, and an empty slot is an error."""
    assert backend.identify(Target(gpu=FIRST)) == (backend.read(FIRST).uuid,)
    (device(tree) / "unique_id").write_text("00c0ffee00c0ffee\n")
    assert backend.identify(Target(gpu=FIRST)) == ("GPU-00c0ffee00c0ffee",)
    (tree / "bus/pci/drivers/amdgpu" / FIRST).unlink()
    with pytest.raises(VendorError, match=f"{FIRST} is not bound"):
        backend.identify(Target(gpu=FIRST))


def set_cpx_mode(tree: Path) -> None:
    (device(tree) / "current_compute_partition").write_text("CPX\n")


def lose_memory(tree: Path) -> None:
    (device(tree) / "mem_info_vram_total").unlink()


def garble_memory(tree: Path) -> None:
    (device(tree) / "mem_info_vram_total").write_bytes(b"\xff\xfe lots\n")


def lose_kfd_node(tree: Path) -> None:
    first_kfd_properties(tree).unlink()


def garble_kfd_node(tree: Path) -> None:
    first_kfd_properties(tree).write_text("simd_count many\nsimd_per_cu\n\n")


def move_kfd_node(tree: Path) -> None:
    properties = first_kfd_properties(tree)
    properties.write_text(properties.read_text().replace("domain 0", "domain 7"))


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (set_cpx_mode, "in CPX mode .* write SPX to its current_compute_partition"),
        (lose_memory, "reports no memory"),
        (garble_memory, "reports no memory"),
        (lose_kfd_node, "no node in the KFD topology"),
        (garble_kfd_node, "no node in the KFD topology"),
        (move_kfd_node, "no node in the KFD topology"),
    ],
)
def test_a_broken_gpu_is_a_fault_and_hides_no_other(
    tree: Path, backend: AmdBackend, breakage: Callable[[Path], None], message: str
) -> None:
    """The fault names GPU, cause and fix; the other GPU stays as it was, and edits refuse with the same words."""
    breakage(tree)
    inventory = discover(backend)
    assert [(gpu.pci_address, gpu.index) for gpu in inventory.gpus] == [(SECOND, 1)]
    assert [fault.pci_address for fault in inventory.faults] == [FIRST]
    with pytest.raises(VendorError, match=message) as refused:
        backend.edits(Target(gpu=FIRST))
    assert str(refused.value) == inventory.faults[0].message


@pytest.mark.parametrize("address", [FIRST, "0000:99:00.0"])
def test_edits_refuse_a_gpu_that_is_gone(tree: Path, backend: AmdBackend, address: str) -> None:
    """A GPU unbound since discovery, or never there, is named, and may come back."""
    (tree / "bus/pci/drivers/amdgpu" / FIRST).unlink()
    with pytest.raises(VendorError, match=f"{address} is not bound to amdgpu") as refused:
        backend.edits(Target(gpu=address))
    assert refused.value.retryable


@pytest.mark.parametrize(
    "name", ["numa_node", "product_name", "unique_id", "current_compute_partition", "device"]
)
def test_what_a_gpu_need_not_tell_may_be_missing(
    tree: Path, backend: AmdBackend, name: str
) -> None:
    """A GPU without one of the optional files is still offered."""
    (device(tree) / name).unlink()
    inventory = discover(backend)
    assert [gpu.pci_address for gpu in inventory.gpus] == [FIRST, SECOND]
    assert inventory.faults == ()


def test_neutral_values_stand_for_what_is_unknown(tree: Path, backend: AmdBackend) -> None:
    """No NUMA node, no product name, no unique id and no module version each have a documented stand-in."""
    (device(tree) / "numa_node").write_text("-1\n")
    (device(tree) / "unique_id").write_text("0000000000000000\n")
    (device(tree) / "product_name").write_text("\n")
    (tree / "module/amdgpu/version").unlink()
    gpu = discover(backend).gpus[0]
    assert (gpu.numa_node, gpu.uuid) == (None, f"GPU-{FIRST}")
    assert (gpu.product_name, gpu.driver_version) == ("AMD GPU 1002:74a1", "")


def test_a_driver_that_is_gone_may_come_back(tmp_path: Path) -> None:
    """While amdgpu is being reloaded nobody knows which GPUs there are: an error that invites a retry, not an empty list."""
    with pytest.raises(VendorError, match="kernel module is not loaded") as refused:
        AmdBackend(Sysfs(tmp_path)).addresses()
    assert refused.value.retryable


def test_a_tree_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    """Not knowing is never mistaken for having no GPUs."""
    (tmp_path / "bus/pci/drivers").mkdir(parents=True)
    (tmp_path / "bus/pci/drivers/amdgpu").write_text("")
    with pytest.raises(VendorError, match="cannot be listed"):
        discover(AmdBackend(Sysfs(tmp_path)))


def test_the_architecture_is_written_in_hexadecimal(tree: Path, backend: AmdBackend) -> None:
    """Version 90010 is gfx90a (MI210), as compilers spell it."""
    properties = first_kfd_properties(tree)
    properties.write_text(properties.read_text().replace("90402", "90010"))
    assert discover(backend).gpus[0].architecture == "gfx90a"
