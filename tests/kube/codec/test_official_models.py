"""The official client's models as a second opinion; importing them costs a second, so one test asks everything."""

from __future__ import annotations

from dra_driver.kube.codec import slice_from_json, slice_to_json
from dra_driver.model.quantity import Quantity
from dra_driver.model.slices import (
    Capacity,
    CounterConsumption,
    Device,
    NodePlace,
    PoolRef,
    RequestPolicy,
    ResourceSlice,
    Taint,
    Version,
)


def test_the_official_models_agree() -> None:
    """A slice of ours is read by the official model without loss: what that writes is our slice again."""
    from kubernetes.client import (  # noqa: PLC0415 -- only where it is needed
        ApiClient,
        V1ResourceSlice,
    )

    ours = ResourceSlice(
        name="n1-nvidia-0",
        driver="gpu.dra-driver.dev",
        pool=PoolRef(name="n1/nvidia", generation=1, slice_count=1),
        place=NodePlace(node_name="n1"),
        devices=(
            Device(
                name="gpu-0",
                attributes={"type": "gpu", "index": 0, "ecc": True, "v": Version("1.2.3")},
                capacity={
                    "memory": Capacity(
                        value=Quantity.of_bytes(2**36),
                        policy=RequestPolicy(
                            default=Quantity.of_bytes(2**30), range_min=Quantity.of_bytes(2**30)
                        ),
                    )
                },
                consumes=(CounterConsumption(counter_set="c", counters={"m": Quantity.of(1)}),),
                taints=(Taint(key="k"),),
                allow_multiple_allocations=True,
            ),
        ),
    )
    theirs = V1ResourceSlice.from_dict(slice_to_json(ours))
    with ApiClient() as client:
        assert slice_from_json(client.sanitize_for_serialization(theirs)) == ours
