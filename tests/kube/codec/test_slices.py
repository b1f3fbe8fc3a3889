"""ResourceSlices to JSON and back."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.kube.codec import slice_from_json, slice_to_json
from dra_driver.model.errors import Invalid
from dra_driver.model.quantity import Quantity
from dra_driver.model.slices import (
    Capacity,
    CounterConsumption,
    CounterSet,
    Device,
    NodePlace,
    NodeRequirement,
    PoolRef,
    RequestPolicy,
    ResourceSlice,
    Taint,
    Version,
)

VERSIONS = ("1.34", "1.35", "1.36", "1.37")


def gib(count: int) -> Quantity:
    return Quantity.of_bytes(count * 2**30)


def make_slice(**fields: Any) -> ResourceSlice:
    defaults: dict[str, Any] = {
        "name": "n1-nvidia-0",
        "driver": "gpu.dra-driver.dev",
        "pool": PoolRef(name="n1/nvidia", generation=3, slice_count=2),
        "place": NodePlace(node_name="n1"),
    }
    return ResourceSlice(**{**defaults, **fields})


FULL_DEVICE = Device(
    name="gpu-0000-3b-00-0-mps",
    attributes={
        "type": "gpu",
        "index": 0,
        "empty": "",
        "ecc": False,
        "driverVersion": Version("570.1.0"),
        "resource.kubernetes.io/pcieRoot": "pci0000:3a",
    },
    capacity={
        "memory": Capacity(
            value=gib(80),
            policy=RequestPolicy(
                default=gib(10), range_min=gib(1), range_max=gib(40), range_step=gib(1)
            ),
        ),
        "shares": Capacity(
            value=Quantity.of(8),
            policy=RequestPolicy(
                default=Quantity.of(1), valid_values=(Quantity.of(1), Quantity.of(2))
            ),
        ),
        "computeUnits": Capacity(value=Quantity.of(132)),
    },
    consumes=(
        CounterConsumption(
            counter_set="gpu-0000-3b-00-0", counters={"memory-slice-0": Quantity.of(1)}
        ),
    ),
    taints=(
        Taint(key="gpu.dra-driver.dev/health", value="xid-79", effect="NoExecute"),
        Taint(key="gpu.dra-driver.dev/note", effect="None", time_added="2026-11-21T01:02:03Z"),
    ),
    allow_multiple_allocations=True,
    binds_to_node=True,
    binding_conditions=("gpu.dra-driver.dev/ready",),
    binding_failure_conditions=("gpu.dra-driver.dev/failed",),
)

EXAMPLES = {
    "a plain device": make_slice(devices=(Device(name="gpu-0"),)),
    "everything a device can say": make_slice(devices=(FULL_DEVICE,)),
    "counters": make_slice(
        shared_counters=(CounterSet(name="gpu-0", counters={"memory-slice-0": Quantity.of(1)}),)
    ),
    "no devices": make_slice(),
    "all nodes": make_slice(place=NodePlace(all_nodes=True)),
    "a node selector": make_slice(
        place=NodePlace(
            node_selector=(
                NodeRequirement(key="zone", operator="In", values=("a", "b")),
                NodeRequirement(key="gpu", operator="Exists"),
                NodeRequirement(key="metadata.name", operator="NotIn", values=("n9",), field=True),
            )
        )
    ),
    "a node for each device": make_slice(
        place=NodePlace(),
        per_device_node_selection=True,
        devices=(Device(name="d", place=NodePlace(node_name="n1")),),
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_round_trip(name: str) -> None:
    """What is written reads back as the same value, through real JSON text."""
    text = json.dumps(slice_to_json(EXAMPLES[name]))
    assert slice_from_json(json.loads(text)) == EXAMPLES[name]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_slice_is_valid(name: str, version: str) -> None:
    """The strict schemas of all supported versions accept what is written."""
    kubernetes_validate.validate(slice_to_json(EXAMPLES[name]), version, strict=True)


def test_writes_nothing_needless() -> None:
    """Empty fields and what the server fills in are left out, so that equal slices are equal JSON."""
    assert slice_to_json(EXAMPLES["a plain device"]) == {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": "n1-nvidia-0"},
        "spec": {
            "driver": "gpu.dra-driver.dev",
            "pool": {"name": "n1/nvidia", "generation": 3, "resourceSliceCount": 2},
            "nodeName": "n1",
            "devices": [{"name": "gpu-0"}],
        },
    }


def test_quantities_are_canonical() -> None:
    """However a quantity was written, it goes out as the API server would store it."""
    source = slice_to_json(EXAMPLES["a plain device"])
    source["spec"]["devices"][0]["capacity"] = {"memory": {"value": "1024Mi"}, "n": {"value": 3}}
    capacity = slice_to_json(slice_from_json(source))["spec"]["devices"][0]["capacity"]
    assert capacity == {"memory": {"value": "1Gi"}, "n": {"value": "3"}}


def test_unknown_fields_are_ignored() -> None:
    """A newer server's fields, at any depth, and attributes of unknown types do no harm."""
    source = slice_to_json(EXAMPLES["everything a device can say"])
    source["metadata"].update(resourceVersion="7", managedFields=[])
    source["spec"].update(partitionTypeAttribute="x", skipNodeOperations=["*"])
    device = source["spec"]["devices"][0]
    device["nodeAllocatableResources"] = {"cpu": {}}
    device["attributes"]["list"] = {"strings": ["a", "b"]}
    device["consumesCounters"][0]["compatibilityGroups"] = ["g"]
    assert slice_from_json(source) == EXAMPLES["everything a device can say"]


def test_an_unknown_taint_effect_is_informational() -> None:
    """The API asks its readers to treat effects they do not know like None."""
    source = slice_to_json(EXAMPLES["a plain device"])
    source["spec"]["devices"][0]["taints"] = [{"key": "k", "effect": "Explode"}]
    assert slice_from_json(source).devices[0].taints == (Taint(key="k", effect="None"),)


def replaced(path: str, value: Any) -> dict[str, Any]:
    """The fullest slice with one field replaced (`...` removes it)."""
    source: dict[str, Any] = json.loads(
        json.dumps(slice_to_json(EXAMPLES["everything a device can say"]))
    )
    target: Any = source
    *parents, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in parents:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return source


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("metadata/name", ..., "metadata.name is missing"),
        ("spec", ..., "spec is missing"),
        ("spec", [], "spec is a list, not an object"),
        ("spec/pool", None, "spec.pool is missing"),
        ("spec/pool/resourceSliceCount", ..., "spec.pool.resourceSliceCount is missing"),
        ("spec/pool/generation", "3", "spec.pool.generation is a text, not a whole number"),
        ("spec/pool/generation", True, "spec.pool.generation is true or false, not a whole number"),
        ("spec/nodeSelector", {"nodeSelectorTerms": []}, "has 0 terms, not exactly one"),
        (
            "spec/nodeSelector",
            {"nodeSelectorTerms": [{"matchFields": [{"key": "k", "operator": "=="}]}]},
            "is '==', not one of In,",
        ),
        ("spec/devices", {}, "spec.devices is an object, not a list"),
        ("spec/devices/0/name", "", "spec.devices[0].name is missing"),
        (
            "spec/devices/0/attributes/type",
            5,
            "spec.devices[0].attributes[type] is a whole number, not an object",
        ),
        (
            "spec/devices/0/capacity/memory/value",
            "80GB",
            "spec.devices[0].capacity[memory].value is wrong: quantity '80GB'",
        ),
        ("spec/devices/0/capacity/memory/value", 1.5, "is a float, not a quantity"),
        (
            "spec/devices/0/bindingConditions",
            [1],
            "spec.devices[0].bindingConditions[0] is a whole number, not a text",
        ),
        ("spec/devices/0/allowMultipleAllocations", "yes", "is a text, not true or false"),
        (
            "spec/devices/0/consumesCounters/0/counters/memory-slice-0",
            {},
            "counters[memory-slice-0].value is missing",
        ),
        ("spec/devices/0/taints/0/effect", ..., "taints[0].effect is missing"),
    ],
)
def test_malformed_slices(path: str, value: Any, complaint: str) -> None:
    """Each is Invalid, and the message names the slice, the field and the value."""
    with pytest.raises(Invalid) as caught:
        slice_from_json(replaced(path, value))
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("ResourceSlice ")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
PATHS = (
    "metadata", "metadata/name", "spec", "spec/driver", "spec/pool", "spec/pool/name", "spec/devices",
    "spec/devices/0", "spec/devices/0/attributes", "spec/devices/0/attributes/type",
    "spec/devices/0/capacity/memory", "spec/devices/0/capacity/memory/requestPolicy", "spec/devices/0/taints/0",
    "spec/devices/0/consumesCounters/0", "spec/nodeSelector", "spec/sharedCounters", "spec/nodeName",
)  # fmt: skip


@given(path=st.sampled_from(PATHS), value=JSON)
def test_odd_json_is_a_slice_or_invalid(path: str, value: Any) -> None:
    """Whatever stands in a field, reading gives a value or Invalid: never another error, never a crash."""
    with suppress(Invalid):
        slice_from_json(replaced(path, value))
