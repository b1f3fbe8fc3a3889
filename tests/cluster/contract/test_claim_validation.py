"""The limits and rules of claims, templates and classes, and how a claim's status may change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dra_driver.model.errors import Invalid
from dra_driver.model.kinds import (
    DEVICE_CLASS,
    POD,
    RESOURCE_CLAIM,
    RESOURCE_CLAIM_TEMPLATE,
)
from dra_driver.ports import JsonObject, KubeApi

pytestmark = pytest.mark.usefixtures("all_features")

Build = Callable[..., JsonObject]
CLASS = "gpu.example.com"
REQUEST = {"name": "gpu", "exactly": {"deviceClassName": CLASS}}
OPTION = {"name": "a", "deviceClassName": CLASS}
SELECTOR = {"cel": {"expression": "true"}}
OPAQUE = {"driver": CLASS, "parameters": {"kind": "X"}}


def request(**fields: Any) -> JsonObject:
    return {"requests": [{"name": "gpu", "exactly": {"deviceClassName": CLASS, **fields}}]}


def requests(count: int) -> JsonObject:
    return {"requests": [REQUEST | {"name": f"r{index}"} for index in range(count)]}


VALID = [
    requests(32),
    request(selectors=[SELECTOR] * 32),
    request(allocationMode="All"),
    request(tolerations=[{"operator": "Exists"}] * 16),
    request(capacity={"requests": {"memory": "1Gi"}}),
    request(capacity={"requests": {"a-b": "1"}}),
    request(count=0),
    {
        "requests": [
            {
                "name": "gpu",
                "firstAvailable": [OPTION | {"name": f"o{index}"} for index in range(8)],
            }
        ]
    },
    {"constraints": [{"requests": ["gpu"], "matchAttribute": "gpu.example.com/parent"}]},
    {"config": [{"requests": ["gpu"], "opaque": OPAQUE}]},
    {"requests": []},
]
INVALID = [
    (requests(33), "devices.requests", "Too many: 33"),
    ({"requests": [REQUEST, REQUEST]}, "devices.requests[1]", "Duplicate value"),
    ({"requests": [REQUEST | {"name": "a/b"}]}, "devices.requests[0].name", "RFC 1123 label"),
    ({"requests": [{"name": "gpu"}]}, "devices.requests[0]", "exactly one of `exactly` or `firstAvailable`"),
    ({"requests": [REQUEST | {"firstAvailable": [OPTION]}]}, "devices.requests[0]", "multiple fields are set"),
    ({"requests": [{"name": "gpu", "firstAvailable": [OPTION, OPTION]}]}, "devices.requests[0].firstAvailable[1]", "Duplicate"),
    ({"requests": [{"name": "gpu", "firstAvailable": [OPTION] * 9}]}, "devices.requests[0].firstAvailable", "Too many: 9"),
    (request(deviceClassName=""), "devices.requests[0].exactly.deviceClassName", "Required value"),
    (request(count=-1), "devices.requests[0].exactly.count", "greater than zero"),
    (request(allocationMode="All", count=2), "devices.requests[0].exactly.count", "must not be specified"),
    (request(allocationMode="Some"), "devices.requests[0].exactly.allocationMode", "Unsupported value"),
    (request(selectors=[SELECTOR] * 33), "devices.requests[0].exactly.selectors", "Too many: 33"),
    (request(selectors=[{}]), "devices.requests[0].exactly.selectors[0].cel", "Required value"),
    (request(selectors=[{"cel": {"expression": "x" * 10241}}]), "devices.requests[0].exactly.selectors[0].cel.expression", "Too long"),
    (request(tolerations=[{"operator": "Like", "key": "a"}]), "devices.requests[0].exactly.tolerations[0].operator", "Unsupported"),
    ({"constraints": [{"requests": ["gpu"]}]}, "devices.constraints[0]", "exactly one of"),
    ({"constraints": [{"matchAttribute": "parent"}]}, "devices.constraints[0].matchAttribute", "a domain and a name separated by a slash"),
    ({"constraints": [{"requests": ["cpu"], "matchAttribute": "a.b/c"}]}, "devices.constraints[0].requests[0]", "must be the name of a request"),
    ({"config": [{}]}, "devices.config[0].opaque", "Required value"),
    ({"config": [{"opaque": {"driver": CLASS}}]}, "devices.config[0].opaque.parameters", "Required value"),
    ({"config": [{"opaque": OPAQUE | {"parameters": {"x": "y" * 10240}}}]}, "devices.config[0].opaque.parameters", "Too long"),
    ({"config": [{"opaque": OPAQUE | {"driver": "a" * 64}}]}, "devices.config[0].opaque.driver", "Too long"),
]  # fmt: skip


@pytest.mark.parametrize("devices", VALID)
async def test_claims_at_the_limits_are_accepted(
    api: KubeApi, new_claim: Build, devices: JsonObject
) -> None:
    """What Kubernetes allows is allowed, in claims and in templates."""
    body = new_claim(**devices)
    await api.create(RESOURCE_CLAIM, body)
    await api.create(RESOURCE_CLAIM_TEMPLATE, body | {"spec": {"spec": body["spec"]}})


@pytest.mark.parametrize(("devices", "field", "message"), INVALID)
async def test_claims_beyond_the_limits_are_refused(
    client: Any, new_claim: Build, devices: JsonObject, field: str, message: str
) -> None:
    """422 that names field and rule, in claims and, one `spec` deeper, in templates."""
    body = new_claim(**devices)
    template = body | {"spec": {"spec": body["spec"]}}
    for plural, sent, prefix in (
        ("resourceclaims", body, "spec"),
        ("resourceclaimtemplates", template, "spec.spec"),
    ):
        path = f"/apis/resource.k8s.io/v1/namespaces/default/{plural}"
        refusal = await client.send("POST", path, sent, code=422)
        causes = refusal["details"]["causes"]
        said = [cause["message"] for cause in causes if cause["field"] == f"{prefix}.{field}"]
        assert any(message in one for one in said), causes


async def test_opaque_parameters_must_be_an_object(client: Any, new_claim: Build) -> None:
    """A list or text as parameters is refused before any driver sees it."""
    body = new_claim(config=[{"opaque": OPAQUE | {"parameters": [1]}}])
    path = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims"
    refusal = await client.send("POST", path, body, code=422)
    assert "spec.devices.config[0].opaque.parameters" in refusal["message"]


async def test_a_claims_spec_never_changes(api: KubeApi, new_claim: Build) -> None:
    """The spec is immutable, and so is a template's; a class may change."""
    body = new_claim()
    await api.create(RESOURCE_CLAIM, body)
    await api.create(RESOURCE_CLAIM_TEMPLATE, body | {"spec": {"spec": body["spec"]}})
    await api.create(DEVICE_CLASS, {"metadata": {"name": CLASS}, "spec": {}})
    with pytest.raises(Invalid, match="spec: Invalid value"):
        await api.patch(
            RESOURCE_CLAIM, "c", {"spec": {"devices": requests(2)}}, namespace="default"
        )
    patch = {"spec": {"spec": {"devices": requests(2)}}}
    with pytest.raises(Invalid, match="spec: Invalid value"):
        await api.patch(RESOURCE_CLAIM_TEMPLATE, "c", patch, namespace="default")
    changed = await api.patch(DEVICE_CLASS, CLASS, {"spec": {"selectors": [SELECTOR]}})
    assert changed["metadata"]["generation"] == 2


async def test_class_selectors_are_checked(api: KubeApi) -> None:
    """A class's selectors and config obey the same limits."""
    with pytest.raises(Invalid, match=r"spec\.selectors: Too many: 33"):
        await api.create(
            DEVICE_CLASS, {"metadata": {"name": CLASS}, "spec": {"selectors": [SELECTOR] * 33}}
        )
    with pytest.raises(Invalid, match=r"spec\.config\[0\]\.opaque"):
        await api.create(DEVICE_CLASS, {"metadata": {"name": CLASS}, "spec": {"config": [{}]}})


@pytest.fixture
async def write_status(api: KubeApi, new_claim: Build) -> Callable[..., Any]:
    """Patch the status of a claim that exists."""
    await api.create(RESOURCE_CLAIM, new_claim())

    async def write(**status: Any) -> JsonObject:
        patch = {"status": status}
        return await api.patch(
            RESOURCE_CLAIM, "c", patch, namespace="default", subresource="status"
        )

    return write


CONSUMER = {"resource": "pods", "name": "p", "uid": "u"}


async def test_an_allocation_is_made_once(
    write_status: Callable[..., Any], allocation: JsonObject
) -> None:
    """It may be removed and made anew, never changed."""
    await write_status(allocation=allocation)
    other = {"devices": {"results": [allocation["devices"]["results"][0] | {"device": "gpu-1"}]}}
    with pytest.raises(Invalid, match=r"status\.allocation: .*cannot be modified"):
        await write_status(allocation=other)
    await write_status(allocation=None)
    await write_status(allocation=other)


async def test_reservations_need_an_allocation(
    write_status: Callable[..., Any], allocation: JsonObject
) -> None:
    """ReservedFor comes after, or with, the allocation; it is unique by uid and at most 256 long."""
    with pytest.raises(Invalid, match="may not be specified when `allocated` is not set"):
        await write_status(reservedFor=[CONSUMER])
    await write_status(allocation=allocation, reservedFor=[CONSUMER])
    with pytest.raises(Invalid, match="Duplicate value"):
        await write_status(reservedFor=[CONSUMER, CONSUMER])
    with pytest.raises(Invalid, match="Too many: 257"):
        await write_status(reservedFor=[CONSUMER | {"uid": str(n)} for n in range(257)])


async def test_device_status_follows_the_allocation(
    write_status: Callable[..., Any], allocation: JsonObject
) -> None:
    """Only allocated devices have a status; it goes with the allocation."""
    entry = {"driver": CLASS, "pool": "n1/x", "device": "gpu-0", "data": {"a": 1}}
    with pytest.raises(Invalid, match="must be an allocated device in the claim"):
        await write_status(devices=[entry])
    stored = await write_status(allocation=allocation, devices=[entry])
    [kept] = stored["status"]["devices"]
    assert {key: value for key, value in kept.items() if value is not None} == entry
    assert "devices" not in (await write_status(allocation=None))["status"]


async def test_results_name_known_requests(
    write_status: Callable[..., Any], allocation: JsonObject
) -> None:
    """An allocation for a request that is not in the claim is refused."""
    allocation["devices"]["results"][0]["request"] = "cpu"
    with pytest.raises(Invalid, match="must be the name of a request in the claim"):
        await write_status(allocation=allocation)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"resourceClaims": [{"name": "g"}]}, "must specify one of"),
        ({"containers": []}, "spec.containers: Required value"),
        (
            {"containers": [{"name": "c", "resources": {"claims": [{"name": "g"}]}}]},
            'Not found: "g"',
        ),
    ],
)
async def test_a_pods_claims_are_checked(
    api: KubeApi, new_pod: Build, spec: JsonObject, message: str
) -> None:
    """A claim comes from one source, and containers use only claims that their pod has."""
    with pytest.raises(Invalid, match=message):
        await api.create(POD, new_pod(**spec))
