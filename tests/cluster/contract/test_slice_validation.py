"""The limits and rules of ResourceSlices, with the field that each refusal names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.ports import JsonObject, KubeApi

pytestmark = pytest.mark.usefixtures("all_features")

Build = Callable[..., JsonObject]
SLICES = "/apis/resource.k8s.io/v1/resourceslices"
POOL = {"name": "n1/x", "generation": 1, "resourceSliceCount": 1}
TAINT = {"key": "sick", "effect": "NoSchedule"}
VALUE = {"value": "1"}


def devices(count: int, **fields: Any) -> list[JsonObject]:
    return [{"name": f"gpu-{index}", **fields} for index in range(count)]


def device(**fields: Any) -> JsonObject:
    return {"devices": devices(1, **fields)}


def counters(count: int, sets: int = 1) -> JsonObject:
    one = {f"c{index}": VALUE for index in range(count)}
    return {
        "devices": None,
        "sharedCounters": [{"name": f"s{index}", "counters": one} for index in range(sets)],
    }


def attributes(count: int) -> JsonObject:
    return {f"a{index}": {"int": index} for index in range(count)}


def consumed(*sets: str, count: int = 1) -> list[JsonObject]:
    one = {f"c{index}": VALUE for index in range(count)}
    return [{"counterSet": name, "counters": one} for name in sets]


def shared(policy: JsonObject, value: str = "80Gi") -> JsonObject:
    capacity = {"memory": {"value": value, "requestPolicy": policy}}
    return device(allowMultipleAllocations=True, capacity=capacity)


NODE_SELECTOR = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}


@pytest.mark.parametrize(
    "spec",
    [
        {"devices": devices(128)},
        {"devices": devices(64, taints=[TAINT])},
        {"devices": devices(64, consumesCounters=consumed("a", "b", count=32))},
        counters(32, sets=8),
        device(attributes=attributes(20), capacity={f"c{index}": VALUE for index in range(12)}),
        device(taints=[TAINT | {"key": f"k{index}"} for index in range(16)]),
        device(attributes={"v": {"version": "570.86.15"}, "example.com/s": {"string": "x" * 64}}),
        device(
            bindingConditions=[f"example.com/c{index}" for index in range(4)],
            bindingFailureConditions=["example.com/failed"],
        ),
        {"driver": "UPPER"},
        device(capacity={"m": {}}),
        shared({"default": "1Gi"}, value="1Mi"),
        {"nodeName": None, "allNodes": True},
        {"nodeName": None, "nodeSelector": NODE_SELECTOR},
        {"nodeName": None, "perDeviceNodeSelection": True, "devices": devices(1, nodeName="n1")},
        {"pool": POOL | {"name": "n1.example.com/a/b"}},
        shared({"default": "10Gi", "validValues": ["1Gi", "10Gi"]}),
        shared({"default": "4Gi", "validRange": {"min": "2Gi", "max": "8Gi", "step": "2Gi"}}),
        shared({"default": "0"}),
        {"devices": None},
    ],
)
async def test_slices_at_the_limits_are_accepted(
    api: KubeApi, new_slice: Build, spec: JsonObject
) -> None:
    """What Kubernetes allows is allowed."""
    await api.create(RESOURCE_SLICE, new_slice(**spec), dry_run=True)


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"driver": ""}, "spec.driver", "Required value"),
        ({"driver": "a_b"}, "spec.driver", "RFC 1123 subdomain"),
        ({"driver": f"{'a' * 40}.{'b' * 40}"}, "spec.driver", "Too long"),
        ({"pool": POOL | {"name": "a//b"}}, "spec.pool.name", "RFC 1123"),
        ({"pool": POOL | {"name": "a" * 254}}, "spec.pool.name", "253"),
        (
            {"pool": POOL | {"resourceSliceCount": 0}},
            "spec.pool.resourceSliceCount",
            "greater than zero",
        ),
        (
            {"pool": POOL | {"generation": -1}},
            "spec.pool.generation",
            "greater than or equal to zero",
        ),
        ({"nodeName": None}, "spec", "exactly one of `nodeName`"),
        ({"allNodes": True}, "spec", "multiple fields are set"),
        ({"nodeName": ""}, "spec.nodeName", "non-empty"),
        ({"nodeName": None, "allNodes": False}, "spec.allNodes", "set to true"),
        (
            {"nodeName": None, "nodeSelector": {}},
            "spec.nodeSelector.nodeSelectorTerms",
            "exactly one",
        ),
        (device(nodeName="n1"), "spec.devices[0]", "perDeviceNodeSelection"),
        ({"nodeName": None, "perDeviceNodeSelection": True}, "spec.devices[0]", "exactly one of"),
        (
            counters(1) | {"devices": devices(1)},
            "spec",
            "only one of `sharedCounters` or `devices` is allowed",
        ),
        ({"devices": devices(129)}, "spec.devices", "Too many: 129: must have at most 128 items"),
        (
            {"devices": devices(65, taints=[TAINT])},
            "spec.devices",
            "Too many: 65: must have at most 64 items",
        ),
        (
            {"devices": [*devices(64), *devices(1, consumesCounters=consumed("a"))]},
            "spec.devices",
            "at most 64",
        ),
        (counters(1, sets=9), "spec.sharedCounters", "Too many: 9"),
        (counters(33), "spec.sharedCounters[0].counters", "Too many: 33"),
        (counters(0), "spec.sharedCounters[0].counters", "Required value"),
        (device(name="GPU_0"), "spec.devices[0].name", "RFC 1123 label"),
        ({"devices": devices(1) * 2}, "spec.devices[1]", 'Duplicate value: "gpu-0"'),
        (device(attributes=attributes(33)), "spec.devices[0]", "must not exceed 32"),
        (device(attributes={"a-b": {"int": 1}}), "spec.devices[0].attributes", "C identifier"),
        (device(attributes={"a": {}}), "spec.devices[0].attributes[a]", "must specify one of"),
        (
            device(attributes={"a": {"int": 1, "bool": True}}),
            "spec.devices[0].attributes[a]",
            "must specify exactly one of",
        ),
        (
            device(attributes={"a": {"string": "x" * 65}}),
            "spec.devices[0].attributes[a].string",
            "Too long",
        ),
        (
            device(attributes={"a": {"version": "535.104.05"}}),
            "spec.devices[0].attributes[a].version",
            "semver",
        ),
        (
            device(consumesCounters=consumed("a", "b", "c")),
            "spec.devices[0].consumesCounters",
            "Too many: 3",
        ),
        (
            device(consumesCounters=consumed("a", "a")),
            "spec.devices[0].consumesCounters[1]",
            "Duplicate",
        ),
        (
            device(consumesCounters=consumed("a", count=33)),
            "spec.devices[0].consumesCounters[0].counters",
            "Too many",
        ),
        (device(taints=[TAINT] * 17), "spec.devices[0].taints", "Too many: 17"),
        (
            device(taints=[{"key": "sick", "effect": "Maybe"}]),
            "spec.devices[0].taints[0].effect",
            "Unsupported value",
        ),
        (device(taints=[{"key": "sick"}]), "spec.devices[0].taints[0].effect", "Required value"),
        (device(taints=[TAINT | {"key": "a b"}]), "spec.devices[0].taints[0].key", "name part"),
        (device(bindingConditions=["a"] * 5), "spec.devices[0].bindingConditions", "Too many: 5"),
        (
            device(capacity={"m": {"value": "1", "requestPolicy": {"default": "1"}}}),
            "spec.devices[0].capacity[m].requestPolicy",
            "allowMultipleAllocations",
        ),
        (
            shared({"validValues": ["1Gi"]}),
            "spec.devices[0].capacity[memory].requestPolicy.default",
            "Required",
        ),
        (
            shared({"default": "2Gi", "validValues": ["1Gi"]}),
            "spec.devices[0].capacity[memory].requestPolicy.validValues",
            "default value is not valid",
        ),
        (
            shared({"default": "1Gi", "validValues": ["2Gi", "1Gi"]}),
            "spec.devices[0].capacity[memory].requestPolicy.validValues[1]",
            "ascending",
        ),
        (
            shared({"default": "1", "validValues": [str(n) for n in range(1, 12)]}),
            "spec.devices[0].capacity[memory].requestPolicy.validValues",
            "Too many: 11",
        ),
        (
            shared({"default": "1Gi", "validRange": {}}),
            "spec.devices[0].capacity[memory].requestPolicy.validRange.min",
            "Required",
        ),
        (
            shared({"default": "1Gi", "validRange": {"min": "2Gi"}}),
            "spec.devices[0].capacity[memory].requestPolicy.validRange.default",
            "less than min",
        ),
        (
            shared({"default": "3Gi", "validRange": {"min": "2Gi", "step": "2Gi"}}),
            "spec.devices[0].capacity[memory].requestPolicy.validRange.step",
            "not a multiple",
        ),
        (
            device(bindingConditions=["a"]),
            "spec.devices[0].bindingFailureConditions",
            "are required to use bindingConditions",
        ),
    ],
)
async def test_slices_beyond_the_limits_are_refused(
    client: Any, new_slice: Build, spec: JsonObject, field: str, message: str
) -> None:
    """422 with a Status whose causes name the field and the rule."""
    refusal = await client.send("POST", SLICES, new_slice(**spec), code=422)
    assert refusal["reason"] == "Invalid"
    assert refusal["message"].startswith('ResourceSlice.resource.k8s.io "s" is invalid: ')
    said = [cause["message"] for cause in refusal["details"]["causes"] if cause["field"] == field]
    assert any(message in one for one in said), refusal["details"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"driver": "other.example.com"}, "spec.driver"),
        ({"nodeName": "n2"}, "spec.nodeName"),
        ({"pool": {"name": "n2/x"}}, "spec.pool.name"),
    ],
)
async def test_a_slice_belongs_to_one_pool_for_life(
    client: Any, new_slice: Build, change: JsonObject, field: str
) -> None:
    """Driver, node and pool never change; the pool's generation may."""
    await client.send("POST", SLICES, new_slice())
    media = "application/merge-patch+json"
    refusal = await client.send("PATCH", f"{SLICES}/s", {"spec": change}, media=media, code=422)
    assert (
        refusal["details"]["causes"][0]["field"],
        refusal["details"]["causes"][0]["reason"],
    ) == (field, "FieldValueInvalid")
    assert "field is immutable" in refusal["message"]
    await client.send("PATCH", f"{SLICES}/s", {"spec": {"pool": {"generation": 2}}}, media=media)


@pytest.mark.parametrize("name", ["UPPER", "a_b", "-a", "x" * 254])
async def test_names_are_dns_subdomains(client: Any, new_slice: Build, name: str) -> None:
    """A bad object name is 422 on metadata.name."""
    refusal = await client.send("POST", SLICES, new_slice(name), code=422)
    assert [cause["field"] for cause in refusal["details"]["causes"]] == ["metadata.name"]


async def test_labels_are_checked(client: Any, new_slice: Build) -> None:
    """Label keys and values have a syntax."""
    body = new_slice()
    body["metadata"]["labels"] = {"a b": "c", "d": "e f"}
    refusal = await client.send("POST", SLICES, body, code=422)
    assert len(refusal["details"]["causes"]) == 2
