from __future__ import annotations

from dra_driver.model.claim import Allocation, AllocationResult, Claim, ClaimRef
from dra_driver.model.quantity import Quantity
from dra_driver.model.slices import (
    CounterConsumption,
    CounterSet,
    Device,
    NodePlace,
    PoolRef,
    ResourceSlice,
    Taint,
)
from dra_driver.rules.usage import DeviceState, GpuCount, count_gpus, device_uses

DRIVER = "gpu.example.com"


def device(name: str, slices: int = 0, *, gpu: str = "gpu-0", taint: Taint | None = None) -> Device:
    """A device that takes so many of its GPU's eight memory slices."""
    taken = CounterConsumption(counter_set=gpu, counters={"memory": Quantity.of(slices)})
    return Device(
        name=name,
        attributes={"parent": gpu},
        consumes=(taken,) if slices else (),
        taints=(taint,) if taint else (),
    )


def pool(
    *devices: Device, node: str = "node-a", generation: int = 1, driver: str = DRIVER
) -> list[ResourceSlice]:
    """A counter slice for two GPUs, and a device slice."""
    ref = PoolRef(name=f"{node}/nvidia", generation=generation, slice_count=2)
    counters = tuple(
        CounterSet(name=gpu, counters={"memory": Quantity.of(8)}) for gpu in ("gpu-0", "gpu-1")
    )
    place = NodePlace(node_name=node)
    return [
        ResourceSlice(name="s0", driver=driver, pool=ref, place=place, shared_counters=counters),
        ResourceSlice(name="s1", driver=driver, pool=ref, place=place, devices=devices),
    ]


def claim(name: str, *devices: str, admin: bool = False, driver: str = DRIVER) -> Claim:
    results = tuple(
        AllocationResult(
            request="main", driver=driver, pool="node-a/nvidia", device=device, admin_access=admin
        )
        for device in devices
    )
    return Claim(
        ref=ClaimRef(namespace="default", name=name, uid=name),
        allocation=Allocation(results=results) if results else None,
    )


def states(slices: list[ResourceSlice], *claims: Claim) -> dict[str, DeviceState]:
    return {use.device.name: use.state for use in device_uses(DRIVER, slices, claims)}


def test_without_claims_everything_is_free() -> None:
    """A device whose counters are all there is free, as is one that needs none."""
    slices = pool(device("whole", 8), device("half", 4), device("plain"))
    assert set(states(slices, claim("waiting")).values()) == {DeviceState.FREE}


def test_what_an_allocated_device_is_made_of_blocks_the_others() -> None:
    """A half blocks the whole GPU and leaves the other half free; the other GPU is not concerned."""
    slices = pool(
        device("whole", 8),
        device("half-a", 4),
        device("half-b", 4),
        device("other", 8, gpu="gpu-1"),
    )
    assert states(slices, claim("c", "half-a")) == {
        "whole": DeviceState.BLOCKED,
        "half-a": DeviceState.ALLOCATED,
        "half-b": DeviceState.FREE,
        "other": DeviceState.FREE,
    }


def test_a_shared_device_takes_its_counters_once() -> None:
    """Two claims on one device leave as much as one claim, and both are named, sorted."""
    slices = pool(device("half-a", 4), device("half-b", 4))
    claims = (claim("z", "half-a"), claim("b", "half-a"))
    uses = device_uses(DRIVER, slices, claims)
    assert [ref.name for ref in uses[0].claims] == ["b", "z"]
    assert uses[1].state is DeviceState.FREE


def test_looking_on_takes_nothing() -> None:
    """An admin result, or another driver's, neither allocates nor blocks."""
    slices = pool(device("whole", 8), device("half", 4))
    claims = (claim("a", "half", admin=True), claim("b", "whole", driver="other.example.com"))
    assert set(states(slices, *claims).values()) == {DeviceState.FREE}


def test_taints_show_unless_they_only_inform() -> None:
    """NoSchedule counts, None does not, and being allocated goes before both."""
    slices = pool(
        device("sick", 8, taint=Taint(key="k", effect="NoSchedule")),
        device("watched", gpu="gpu-1", taint=Taint(key="k", effect="None")),
        device("used", 1, taint=Taint(key="k", effect="NoExecute")),
    )
    assert states(slices, claim("c", "used")) == {
        "sick": DeviceState.TAINTED,
        "watched": DeviceState.FREE,
        "used": DeviceState.ALLOCATED,
    }


def test_unknown_counters_block() -> None:
    """A device whose counter set is not published (yet) cannot be had, as in the scheduler."""
    assert states(pool(device("d", 1, gpu="gpu-7"))) == {"d": DeviceState.BLOCKED}


def test_an_older_generation_and_other_drivers_are_not_counted() -> None:
    """Devices that are being replaced, and those that are not ours, do not show."""
    slices = [
        *pool(device("old")),
        *pool(device("new"), generation=2),
        *pool(device("foreign"), driver="other.example.com", generation=3),
    ]
    assert states(slices) == {"new": DeviceState.FREE}


def test_devices_are_sorted_by_node_and_name() -> None:
    """The order does not depend on that of the slices."""
    slices = [*pool(device("b"), device("a"), node="node-b"), *pool(device("c"), node="node-a")]
    uses = device_uses(DRIVER, slices, ())
    assert [(use.node, use.device.name) for use in uses] == [
        ("node-a", "c"),
        ("node-b", "a"),
        ("node-b", "b"),
    ]


def test_a_gpu_is_counted_once_however_many_forms_it_has() -> None:
    """GPUs are told apart by their parent; one with any part in use is in use."""
    slices = pool(device("whole", 8), device("half-a", 4), device("other", 8, gpu="gpu-1"))
    uses = device_uses(DRIVER, slices, [claim("c", "half-a")])
    assert count_gpus(uses) == {"node-a": GpuCount(gpus=2, in_use=1)}
