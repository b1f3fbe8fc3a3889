"""ResourceClaims and DeviceClasses from JSON, allocations to JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from dra_driver.kube.codec import (
    allocated_claim_from_json,
    allocation_to_json,
    claim_from_json,
    class_from_json,
)
from dra_driver.model.claim import (
    AllocatedClaim,
    Allocation,
    AllocationResult,
    Claim,
    ClaimRef,
    ClaimRequest,
    Constraint,
    Consumer,
    DeviceClass,
    DeviceRequest,
    OpaqueConfig,
    Toleration,
)
from dra_driver.model.errors import Invalid
from dra_driver.model.quantity import Quantity
from dra_driver.model.slices import NodeRequirement

DRIVER = "gpu.dra-driver.dev"
UID = "3f0c9a52-2f7e-4f0e-8a3c-0d7a3c1b2e4f"
PARAMETERS = {"apiVersion": f"{DRIVER}/v1alpha1", "kind": "GpuConfig", "deep": {"a": [1, None]}}
SPEC: dict[str, Any] = {
    "devices": {
        "requests": [
            {
                "name": "one",
                "exactly": {
                    "deviceClassName": "gpu.dra-driver.dev",
                    "selectors": [{"cel": {"expression": "true"}}],
                    "allocationMode": "All",
                    "adminAccess": True,
                    "tolerations": [
                        {"operator": "Exists"},
                        {"key": "k", "value": "v", "effect": "NoSchedule"},
                    ],
                    "capacity": {"requests": {"memory": "20Gi"}},
                },
            },
            {
                "name": "two",
                "firstAvailable": [
                    {
                        "name": "big",
                        "deviceClassName": "a",
                        "allocationMode": "ExactCount",
                        "count": 2,
                    },
                    {"name": "small", "deviceClassName": "b"},
                ],
            },
        ],
        "constraints": [
            {"requests": ["one"], "matchAttribute": "resource.kubernetes.io/pcieRoot"},
            {"distinctAttribute": "gpu.dra-driver.dev/parent"},
        ],
        "config": [
            {"requests": ["two/big"], "opaque": {"driver": DRIVER, "parameters": PARAMETERS}}
        ],
    }
}
ALLOCATION = Allocation(
    results=(
        AllocationResult(
            request="one", driver=DRIVER, pool="n1/nvidia", device="gpu-0", admin_access=True
        ),
        AllocationResult(
            request="two/big",
            driver=DRIVER,
            pool="n1/nvidia",
            device="gpu-1-mps",
            share_id="0b2a1f5e-6a3b-4d7c-9a51-2f9a3a0b6f10",
            consumed_capacity={"memory": Quantity.of_bytes(20 * 2**30)},
            tolerations=(Toleration(operator="Exists"),),
            binding_conditions=("ready",),
            binding_failure_conditions=("failed",),
        ),
    ),
    config=(
        OpaqueConfig(driver=DRIVER, parameters={"a": 1}, source="FromClass"),
        OpaqueConfig(driver=DRIVER, parameters=PARAMETERS, requests=("two",), source="FromClaim"),
    ),
    node_selector=(
        NodeRequirement(key="metadata.name", operator="In", values=("n1",), field=True),
    ),
)


def claim_json(**fields: Any) -> dict[str, Any]:
    metadata = {"namespace": "team", "name": "a", "uid": UID}
    body = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": metadata,
        "spec": SPEC,
        **fields,
    }
    copy: dict[str, Any] = json.loads(json.dumps(body))
    return copy


def test_a_claim() -> None:
    """Everything a claim asks for arrives in the model."""
    assert claim_from_json(claim_json()) == Claim(
        ref=ClaimRef(namespace="team", name="a", uid=UID),
        requests=(
            ClaimRequest(
                name="one",
                alternatives=(
                    DeviceRequest(
                        name="one",
                        device_class="gpu.dra-driver.dev",
                        selectors=("true",),
                        mode="All",
                        admin_access=True,
                        tolerations=(
                            Toleration(operator="Exists"),
                            Toleration(key="k", value="v", effect="NoSchedule"),
                        ),
                        capacity={"memory": Quantity.of_bytes(20 * 2**30)},
                    ),
                ),
            ),
            ClaimRequest(
                name="two",
                alternatives=(
                    DeviceRequest(name="big", device_class="a", count=2),
                    DeviceRequest(name="small", device_class="b"),
                ),
                prioritized=True,
            ),
        ),
        constraints=(
            Constraint(requests=("one",), match="resource.kubernetes.io/pcieRoot"),
            Constraint(distinct="gpu.dra-driver.dev/parent"),
        ),
        config=(OpaqueConfig(driver=DRIVER, parameters=PARAMETERS, requests=("two/big",)),),
    )


@pytest.mark.parametrize("allocation", [ALLOCATION, Allocation(results=())])
def test_allocation_round_trip(allocation: Allocation) -> None:
    """An allocation that is written reads back as the same value."""
    body = claim_json(status={"allocation": allocation_to_json(allocation)})
    assert claim_from_json(body).allocation == allocation


@pytest.mark.parametrize("version", ["1.34", "1.35", "1.36", "1.37"])
def test_every_allocation_is_valid(version: str) -> None:
    """The strict schemas of all supported versions accept the claim with what is written."""
    body = claim_json(status={"allocation": allocation_to_json(ALLOCATION)})
    kubernetes_validate.validate(body, version, strict=True)


def test_parameters_stay_as_written() -> None:
    """Opaque parameters are JSON of somebody else: nothing in them is read, ordered or dropped."""
    body = claim_json(status={"allocation": allocation_to_json(ALLOCATION)})
    allocation = claim_from_json(body).allocation
    assert allocation is not None
    assert allocation.config[1].parameters == PARAMETERS


@pytest.mark.parametrize("status", [None, {}, {"allocation": None}, {"devices": []}])
def test_an_unallocated_claim(status: Any) -> None:
    """No allocation, in each way in which the API says so."""
    assert claim_from_json(claim_json(status=status)).allocation is None


def test_an_empty_claim() -> None:
    """A spec without devices asks for nothing."""
    claim = claim_from_json(claim_json(spec={}))
    assert (claim.requests, claim.constraints, claim.config) == ((), (), ())


def test_a_device_class() -> None:
    """Selectors and parameters; the source of the parameters is the class."""
    body = {
        "metadata": {"name": "gpu.dra-driver.dev"},
        "spec": {
            "selectors": [{"cel": {"expression": "a"}}, {"cel": {"expression": "b"}}],
            "config": [{"opaque": {"driver": DRIVER, "parameters": {"x": 1}}}],
            "extendedResourceName": "example.com/gpu",
        },
    }
    assert class_from_json(body) == DeviceClass(
        name="gpu.dra-driver.dev",
        selectors=("a", "b"),
        config=(OpaqueConfig(driver=DRIVER, parameters={"x": 1}, source="FromClass"),),
    )


def test_config_of_another_type_is_passed_over() -> None:
    """Configuration that is not opaque is nobody's parameters."""
    body = claim_json()
    body["spec"]["devices"]["config"].insert(0, {"requests": ["one"]})
    assert len(claim_from_json(body).config) == 1


@pytest.mark.parametrize(
    ("where", "value", "complaint"),
    [
        ("metadata", {"namespace": "team", "name": "a"}, "metadata.uid is missing"),
        ("spec", None, "spec is missing"),
        ("spec", {"devices": {"requests": [{"name": "r"}]}}, "requests[0].exactly is missing, and so is firstAvailable"),
        ("spec", {"devices": {"requests": [{"name": "r", "exactly": {}}]}}, "requests[0].exactly.deviceClassName is missing"),
        ("spec", {"devices": {"constraints": [{"newMatch": "x"}]}}, "constraints[0].matchAttribute is missing, and so is distinctAttribute"),
        ("spec", {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c", "allocationMode": "Some"}}]}}, "allocationMode is 'Some', not one of ExactCount, All"),
        ("spec", {"devices": {"config": [{"opaque": {"driver": DRIVER}}]}}, "config[0].opaque.parameters is missing"),
        ("spec", {"devices": {"config": [{"opaque": {"driver": DRIVER, "parameters": "x"}}]}}, "parameters is a text, not an object"),
        ("status", {"allocation": {"devices": {"results": [{"request": "r"}]}}}, "results[0].driver is missing"),
        ("status", {"allocation": {"devices": {"config": [{"source": "FromNowhere", "opaque": {"driver": "d", "parameters": {}}}]}}}, "source is 'FromNowhere', not one of"),
    ],
)  # fmt: skip
def test_malformed_claims(where: str, value: Any, complaint: str) -> None:
    """What is missing or not understood is Invalid, and the message names the claim and the field."""
    with pytest.raises(Invalid) as caught:
        claim_from_json(claim_json(**{where: value}))
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("ResourceClaim team/a: ")


def granted_json(**status: Any) -> dict[str, Any]:
    """An allocated claim as the API server answers it."""
    body = claim_json(status={"allocation": allocation_to_json(ALLOCATION)} | status)
    body["metadata"]["resourceVersion"] = "4711"
    return body


def test_a_claim_on_its_node() -> None:
    """What was given arrives without nodes and tolerations; so do its users, its version, and whether it is going away."""
    pod = {"resource": "pods", "name": "train-0", "uid": "pod-uid"}
    body = granted_json(reservedFor=[pod])
    first, second = ALLOCATION.results
    expected = AllocatedClaim(
        ref=ClaimRef(namespace="team", name="a", uid=UID),
        resource_version="4711",
        allocation=Allocation(
            results=(first, replace(second, tolerations=())), config=ALLOCATION.config
        ),
        consumers=(Consumer(resource="pods", name="train-0", uid="pod-uid"),),
    )
    assert allocated_claim_from_json(body) == expected
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert allocated_claim_from_json(body) == replace(expected, deleting=True)


def test_what_was_asked_does_not_matter_on_the_node() -> None:
    """Requests, constraints, tolerations and node terms that only a newer release understands fail no claim that is allocated."""
    body = granted_json()
    read = allocated_claim_from_json(body)
    body["spec"] = {
        "devices": {"requests": [{"name": "r", "bestOf": 3}], "constraints": [{"near": "x"}]}
    }
    body["status"]["allocation"]["nodeSelector"] = {"nodeSelectorTerms": [{"matchRacks": []}] * 2}
    body["status"]["allocation"]["devices"]["results"][1]["tolerations"] = [{"operator": "Newer"}]
    with pytest.raises(Invalid):
        claim_from_json(body)
    assert allocated_claim_from_json(body) == read


@pytest.mark.parametrize("status", [None, {}, {"allocation": None}, {"reservedFor": []}])
def test_a_claim_that_nothing_is_given_to(status: Any) -> None:
    """No allocation and no user, in each way in which the API says so."""
    claim = allocated_claim_from_json(granted_json() | {"status": status})
    assert (claim.allocation, claim.consumers) == (None, ())


@pytest.mark.parametrize(
    ("status", "complaint"),
    [
        ({"allocation": {"devices": {"results": [{"request": "r"}]}}}, "results[0].driver is missing"),
        ({"allocation": {"devices": {"config": [{"opaque": {"driver": "d"}}]}}}, "parameters is missing"),
        ({"reservedFor": [{"resource": "pods", "name": "a"}]}, "status.reservedFor[0].uid is missing"),
        ({"reservedFor": "pods"}, "status.reservedFor is a text, not a list"),
    ],
)  # fmt: skip
def test_a_malformed_grant(status: Any, complaint: str) -> None:
    """What the node does need is checked as strictly as ever, and the message names claim and field."""
    with pytest.raises(Invalid) as caught:
        allocated_claim_from_json(granted_json() | {"status": status})
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("ResourceClaim team/a: ")


@pytest.mark.parametrize("value", [None, [], "x", {}, {"metadata": []}])
def test_what_is_no_object_at_all(value: Any) -> None:
    """Even then the error is Invalid and says what was to be read."""
    with pytest.raises(Invalid, match="ResourceClaim "):
        claim_from_json(value)
    with pytest.raises(Invalid, match="ResourceClaim "):
        allocated_claim_from_json(value)
    with pytest.raises(Invalid, match="DeviceClass "):
        class_from_json(value)
