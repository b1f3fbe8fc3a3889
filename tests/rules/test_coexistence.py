"""GPUs that somebody else gives out, too: told apart by what device plugins and drivers really say of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dra_driver.model.device import Gpu, Vendor
from dra_driver.model.inventory import Inventory
from dra_driver.model.slices import AttributeValue, Device, NodePlace, PoolRef, ResourceSlice
from dra_driver.rules.coexistence import offered_elsewhere, without

ONE, TWO = "0000:1b:00.0", "0000:43:00.0"
UUIDS = {
    ONE: "GPU-11111111-2222-3333-4444-555555555555",
    TWO: "GPU-66666666-2222-3333-4444-555555555555",
}


def inventory(vendor: Vendor = Vendor.NVIDIA) -> Inventory:
    """Two GPUs."""
    return Inventory(vendor=vendor, gpus=tuple(gpu(vendor, address) for address in UUIDS))


def gpu(vendor: Vendor, address: str) -> Gpu:
    """One GPU."""
    return Gpu(
        vendor=vendor,
        pci_address=address,
        uuid=UUIDS[address],
        index=0,
        product_name="",
        architecture="",
        memory_bytes=1,
        compute_units=1,
        driver_version="",
    )


def of_driver(driver: str, *devices: Mapping[str, AttributeValue]) -> ResourceSlice:
    """Another driver's slice, whose devices have these attributes."""
    return ResourceSlice(
        name="s",
        driver=driver,
        pool=PoolRef(name="n", generation=1, slice_count=1),
        place=NodePlace(node_name="n"),
        devices=tuple(Device(name=f"d{i}", attributes=one) for i, one in enumerate(devices)),
    )


@pytest.mark.parametrize(
    ("resource", "amount", "vendor"),
    [
        ("nvidia.com/gpu", "8", Vendor.NVIDIA),
        ("nvidia.com/gpu.shared", "32", Vendor.NVIDIA),
        ("nvidia.com/mig-1g.10gb", "7", Vendor.NVIDIA),
        ("amd.com/gpu", "1", Vendor.AMD),
        ("amd.com/cpx_nps4", "64", Vendor.AMD),
        ("nvidia.com/gpu", "0", None),
        ("nvidia.com/rdma_shared_device", "63", None),
        ("example.com/gpu", "8", None),
    ],
)
def test_a_device_plugin_has_all_gpus_of_its_vendor(
    resource: str, amount: str, vendor: Vendor | None
) -> None:
    """As long as it offers any; network devices and other vendors' resources are none of it."""
    for ours in Vendor:
        found = offered_elsewhere(inventory(ours), {"cpu": "8", resource: amount}, {}, [])
        expected = {ONE, TWO} if ours is vendor else set()
        assert set(found) == expected
        assert all(resource in who for who in found.values())


@pytest.mark.parametrize(
    "attributes",
    [
        {"resource.kubernetes.io/pciBusID": ONE},
        {"pciAddr": "00000000:1B:00.0"},
        {"uuid": UUIDS[ONE]},
        {"type": "mig", "parentUUID": UUIDS[ONE].lower()},
    ],
)
def test_another_driver_is_recognised_by_address_or_uuid(
    attributes: dict[str, AttributeValue],
) -> None:
    """In whatever attribute, in either spelling; the GPU that it does not name is ours."""
    for driver in ("gpu.nvidia.com", "vfio.example.com"):
        found = offered_elsewhere(inventory(), {}, {}, [of_driver(driver, attributes)])
        assert found == {ONE: f"the DRA driver {driver} offers it as well"}


def test_a_vendors_driver_that_names_nothing_may_mean_any_gpu() -> None:
    """Its devices without address and UUID are refused all GPUs of that vendor; another's are nobody's GPUs."""
    vague: Mapping[str, AttributeValue] = {"index": 3, "productName": "H100"}
    assert set(offered_elsewhere(inventory(), {}, {}, [of_driver("gpu.nvidia.com", vague)])) == {
        ONE,
        TWO,
    }
    assert not offered_elsewhere(inventory(), {}, {}, [of_driver("gpu.amd.com", vague)])
    assert not offered_elsewhere(inventory(), {}, {}, [of_driver("net.example.com", vague)])
    assert not offered_elsewhere(inventory(), {}, {}, [of_driver("gpu.nvidia.com")])
    elsewhere = {"resource.kubernetes.io/pciBusID": "0000:99:00.0"}
    assert not offered_elsewhere(inventory(), {}, {}, [of_driver("gpu.nvidia.com", elsewhere)])


def test_what_is_left_is_the_rest() -> None:
    """In order, with its faults."""
    assert without(inventory(), [ONE]).gpus == (gpu(Vendor.NVIDIA, TWO),)
    assert without(inventory(), []) == inventory()


@pytest.mark.parametrize(
    ("state", "is_theirs"),
    [("pending", True), ("rebooting", True), ("success", False), ("failed", False), ("", False)],
)
def test_the_mig_manager_has_all_gpus_while_it_is_at_work(state: str, *, is_theirs: bool) -> None:
    """It destroys partitions, whoever uses them; AMD's GPUs are none of its."""
    labels = {"nvidia.com/mig.config.state": state}
    found = offered_elsewhere(inventory(), {}, labels, [])
    assert set(found) == ({ONE, TWO} if is_theirs else set())
    assert all(state in who for who in found.values())
    assert not offered_elsewhere(inventory(Vendor.AMD), {}, labels, [])
