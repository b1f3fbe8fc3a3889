"""Create, replace and patch: identity, versions, generations, conflicts, subresources."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from dra_driver.model.errors import Conflict, Invalid, NotFound
from dra_driver.model.kinds import (
    EVENT,
    LEASE,
    NODE,
    POD,
    RESOURCE_CLAIM,
    RESOURCE_SLICE,
    Kind,
)
from dra_driver.ports import JsonObject, KubeApi

Build = Callable[..., JsonObject]
SLICES = "/apis/resource.k8s.io/v1/resourceslices"
CLAIMS = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims"
PODS = "/api/v1/namespaces/default/pods"


async def test_a_new_object_gets_an_identity(api: KubeApi, new_slice: Build) -> None:
    """uid, resourceVersion, generation 1 and creationTimestamp are the server's, whatever the client wrote."""
    body = new_slice()
    body["metadata"] |= {
        "uid": "mine",
        "generation": 7,
        "creationTimestamp": "1999-01-01T00:00:00Z",
    }
    meta = (await api.create(RESOURCE_SLICE, body))["metadata"]
    assert uuid.UUID(meta["uid"]).version == 4
    assert meta["generation"] == 1
    assert int(meta["resourceVersion"]) > 0
    assert meta["creationTimestamp"] > "2020"


async def test_one_counter_orders_all_writes(
    api: KubeApi, new_slice: Build, new_claim: Build
) -> None:
    """ResourceVersions grow over all kinds; those of slices alone would have no room for a claim's in between."""
    written = [
        await api.create(kind, body)
        for number in range(3)
        for kind, body in (
            (RESOURCE_SLICE, new_slice(f"s{number}")),
            (RESOURCE_CLAIM, new_claim(f"c{number}")),
        )
    ]
    versions = [int(one["metadata"]["resourceVersion"]) for one in written]
    assert versions == sorted(set(versions))


async def test_generated_names_are_cut_and_unique(api: KubeApi, new_slice: Build) -> None:
    """GenerateName is cut to 58 characters and gets five random ones."""
    body = new_slice()
    body["metadata"] = {"generateName": "g" * 70 + "-"}
    names = {(await api.create(RESOURCE_SLICE, body))["metadata"]["name"] for _ in range(20)}
    assert len(names) == 20
    assert all(len(name) == 63 and name.startswith("g" * 58) for name in names)


async def test_a_name_is_taken_once(client: Any, new_slice: Build) -> None:
    """The second create is 409 AlreadyExists."""
    await client.send("POST", SLICES, new_slice(), code=201)
    refusal = await client.send("POST", SLICES, new_slice(), code=409)
    assert refusal["reason"] == "AlreadyExists"
    assert refusal["message"] == 'resourceslices.resource.k8s.io "s" already exists'


async def test_generation_counts_spec_changes_alone(api: KubeApi, new_slice: Build) -> None:
    """A label leaves the generation, a device raises it, and writing the same again writes nothing."""
    obj = await api.create(RESOURCE_SLICE, new_slice())
    labelled = await api.patch(RESOURCE_SLICE, "s", {"metadata": {"labels": {"a": "b"}}})
    assert labelled["metadata"]["generation"] == 1
    labelled["spec"]["devices"].append({"name": "gpu-1"})
    grown = await api.replace(RESOURCE_SLICE, labelled)
    assert grown["metadata"]["generation"] == 2
    assert await api.replace(RESOURCE_SLICE, grown) == grown
    assert grown["metadata"]["uid"] == obj["metadata"]["uid"]


async def test_a_stale_put_conflicts(client: Any, new_slice: Build) -> None:
    """PUT with an old resourceVersion is 409 Conflict, in the real server's words."""
    old = await client.send("POST", SLICES, new_slice())
    await client.send(
        "PUT", f"{SLICES}/s", old | {"metadata": old["metadata"] | {"labels": {"a": "b"}}}
    )
    refusal = await client.send("PUT", f"{SLICES}/s", old, code=409)
    assert refusal["reason"] == "Conflict"
    assert (
        "the object has been modified; please apply your changes to the latest version"
        in refusal["message"]
    )


async def test_a_patch_with_a_stale_version_conflicts(api: KubeApi, new_slice: Build) -> None:
    """A resourceVersion in a patch fences it; without one it applies to whatever is there."""
    old = await api.create(RESOURCE_SLICE, new_slice())
    await api.patch(RESOURCE_SLICE, "s", {"metadata": {"labels": {"a": "b"}}})
    version = old["metadata"]["resourceVersion"]
    with pytest.raises(Conflict):
        await api.patch(
            RESOURCE_SLICE, "s", {"metadata": {"resourceVersion": version, "labels": {"a": "c"}}}
        )
    patched = await api.patch(RESOURCE_SLICE, "s", {"metadata": {"labels": {"c": "d"}}})
    assert patched["metadata"]["labels"] == {"a": "b", "c": "d"}


async def test_a_write_to_a_namesake_conflicts(api: KubeApi, new_slice: Build) -> None:
    """A PUT whose uid is another's is refused: the object was replaced meanwhile."""
    obj = await api.create(RESOURCE_SLICE, new_slice())
    obj["metadata"] = {"name": "s", "uid": str(uuid.uuid4())}
    with pytest.raises(Conflict, match="UID in precondition"):
        await api.replace(RESOURCE_SLICE, obj)


async def test_fifty_writers_lose_no_update(client: Any) -> None:
    """Read-modify-write with optimistic locking counts exactly, however many compete."""
    path = "/api/v1/nodes"
    await client.send("POST", path, {"metadata": {"name": "n", "labels": {"count": "0"}}})
    codes: Counter[int] = Counter()

    async def add_one() -> None:
        code = 0
        while code != 200:
            node = await client.send("GET", f"{path}/n")
            labels = node["metadata"]["labels"]
            labels["count"] = str(int(labels["count"]) + 1)
            code, _ = await client.ask("PUT", f"{path}/n", node)
            codes[code] += 1

    await asyncio.gather(*(add_one() for _ in range(50)))
    node = await client.send("GET", f"{path}/n")
    assert node["metadata"]["labels"]["count"] == "50"
    assert set(codes) == {200, 409}


@pytest.mark.parametrize("kind", [NODE, EVENT])
async def test_some_kinds_may_be_replaced_blindly(api: KubeApi, kind: Kind) -> None:
    """A PUT without resourceVersion wins on most kinds."""
    namespace = "default" if kind.namespaced else None
    meta = {"name": "x"} | ({"namespace": "default"} if namespace else {})
    await api.create(kind, {"metadata": meta}, namespace=namespace)
    replaced = await api.replace(kind, {"metadata": meta | {"labels": {"a": "b"}}})
    assert replaced["metadata"]["labels"] == {"a": "b"}


async def test_a_lease_is_never_replaced_blindly(api: KubeApi) -> None:
    """A Lease's PUT without resourceVersion is 422."""
    meta = {"name": "x", "namespace": "default"}
    await api.create(LEASE, {"metadata": meta, "spec": {"holderIdentity": "a"}})
    with pytest.raises(Invalid, match="must be specified for an update"):
        await api.replace(LEASE, {"metadata": meta, "spec": {"holderIdentity": "b"}})


async def test_status_and_spec_are_written_apart(
    client: Any, new_claim: Build, allocation: JsonObject
) -> None:
    """Create and the main endpoint drop the status; /status changes nothing else."""
    claim = await client.send("POST", CLAIMS, new_claim() | {"status": {"allocation": allocation}})
    assert claim["status"] == {}
    patch = {"metadata": {"labels": {"a": "b"}}, "status": {"allocation": allocation}}
    media = "application/merge-patch+json"
    stored = await client.send("PATCH", f"{CLAIMS}/c/status", patch, media=media)
    assert stored["status"]["allocation"]["devices"] == allocation["devices"]
    assert "labels" not in stored["metadata"]
    kept = await client.send("PUT", f"{CLAIMS}/c", {**stored, "status": {}})
    assert kept["status"] == stored["status"]
    assert kept["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]


async def test_a_dry_run_changes_nothing(client: Any, new_slice: Build) -> None:
    """dryRun=All answers as the real write would, defaults and all, and stores nothing."""
    answer = await client.send("POST", f"{SLICES}?dryRun=All", new_slice(), code=201)
    assert answer["metadata"]["uid"]
    await client.send("GET", f"{SLICES}/s", code=404)
    await client.send("POST", SLICES, new_slice())
    await client.send("DELETE", f"{SLICES}/s?dryRun=All")
    media = "application/merge-patch+json"
    await client.send(
        "PATCH", f"{SLICES}/s?dryRun=All", {"metadata": {"labels": {"a": "b"}}}, media=media
    )
    assert "labels" not in (await client.send("GET", f"{SLICES}/s"))["metadata"]


async def test_unknown_fields_are_dropped_or_refused(client: Any, new_slice: Build) -> None:
    """Unknown fields vanish silently, unless fieldValidation=Strict makes them 400."""
    body = new_slice(nodeNames="typo")
    refusal = await client.send("POST", f"{SLICES}?fieldValidation=Strict", body, code=400)
    assert refusal["message"].endswith('strict decoding error: unknown field "spec.nodeNames"')
    assert (
        "nodeNames"
        not in (await client.send("POST", f"{SLICES}?fieldValidation=Warn", body))["spec"]
    )


async def test_wrong_types_are_bad_requests(client: Any, new_slice: Build) -> None:
    """A text where a number belongs is 400, as decoding into Go types makes it."""
    body = new_slice(pool={"name": "p", "generation": "1", "resourceSliceCount": 1})
    refusal = await client.send("POST", SLICES, body, code=400)
    assert "spec.pool.generation" in refusal["message"]


async def test_quantities_take_their_canonical_form(api: KubeApi, new_slice: Build) -> None:
    """What comes back may be spelt differently: drivers must compare by value."""
    devices = [{"name": "gpu-0", "capacity": {"memory": {"value": "1024Mi"}}}]
    stored = await api.create(RESOURCE_SLICE, new_slice(devices=devices))
    assert stored["spec"]["devices"][0]["capacity"] == {"memory": {"value": "1Gi"}}


async def test_claims_get_their_defaults(api: KubeApi, new_claim: Build) -> None:
    """AllocationMode is ExactCount, and count 1."""
    stored = await api.create(RESOURCE_CLAIM, new_claim())
    exactly = stored["spec"]["devices"]["requests"][0]["exactly"]
    assert (exactly["allocationMode"], exactly["count"]) == ("ExactCount", 1)


@pytest.mark.usefixtures("all_features")
async def test_taints_keep_the_time_they_were_added(api: KubeApi, new_slice: Build) -> None:
    """A taint without timeAdded gets one, and keeps it over later writes without one."""
    devices = [{"name": "gpu-0", "taints": [{"key": "sick", "effect": "NoSchedule"}]}]
    stored = await api.create(RESOURCE_SLICE, new_slice(devices=devices))
    added = stored["spec"]["devices"][0]["taints"][0]["timeAdded"]
    again = await api.patch(RESOURCE_SLICE, "s", {"spec": {"devices": devices}})
    assert again["spec"]["devices"][0]["taints"][0]["timeAdded"] == added
    assert again["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]


async def test_a_pod_is_bound_once(client: Any, new_pod: Build) -> None:
    """pods/binding sets spec.nodeName and PodScheduled; the second binding conflicts."""
    await client.send("POST", PODS, new_pod(schedulerName="none"))  # nobody else speaks of it
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "n1"},
    }
    await client.send("POST", f"{PODS}/p/binding", binding, code=201)
    pod = await client.send("GET", f"{PODS}/p")
    assert pod["spec"]["nodeName"] == "n1"
    conditions = {one["type"]: one["status"] for one in pod["status"]["conditions"]}
    assert conditions["PodScheduled"] == "True"
    refusal = await client.send("POST", f"{PODS}/p/binding", binding, code=409)
    assert 'already assigned to node "n1"' in refusal["message"]


async def test_objects_need_a_living_namespace(api: KubeApi, new_claim: Build) -> None:
    """Creating in a namespace that does not exist is 404 for the namespace."""
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        await api.create(
            RESOURCE_CLAIM, new_claim() | {"metadata": {"name": "c"}}, namespace="nowhere"
        )


async def test_what_is_not_served_is_not_found(client: Any) -> None:
    """Unknown kinds, groups and subresources are 404, unknown methods 405."""
    for path in ("/api/v1/gadgets", f"{SLICES}/s/status"):
        assert (await client.send("GET", path, code=404))["reason"] == "NotFound"
    async with client.session.get(f"{client.url}/apis/none.example.com/v1/things") as answer:
        assert answer.status == 404
    await client.send("POST", f"{SLICES}/s", {}, code=405)


async def test_body_and_url_must_agree(client: Any, new_slice: Build, new_claim: Build) -> None:
    """A body of another name, namespace or kind than the URL's is 400."""
    await client.send("POST", SLICES, new_slice())
    await client.send("PUT", f"{SLICES}/s", new_slice("other"), code=400)
    await client.send("POST", CLAIMS.replace("default", "kube-system"), new_claim(), code=400)
    await client.send("POST", SLICES, new_slice("t") | {"kind": "Pod"}, code=400)


async def test_a_bound_pod_keeps_its_node(api: KubeApi, new_pod: Build) -> None:
    """A node is named at the creation or by a binding, never by an update."""
    await api.create(POD, new_pod("bound", nodeName="n1"))
    await api.create(POD, new_pod())
    for name in ("bound", "p"):
        with pytest.raises(Invalid, match="pod updates may not change fields other than"):
            await api.patch(POD, name, {"spec": {"nodeName": "n2"}}, namespace="default")
