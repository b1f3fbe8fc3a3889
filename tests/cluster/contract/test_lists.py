"""Lists: selectors, pages over one version, exact versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dra_driver.model.errors import Invalid
from dra_driver.model.kinds import EVENT, NODE, POD, RESOURCE_SLICE
from dra_driver.ports import JsonObject, KubeApi

Build = Callable[..., JsonObject]
SLICES = "/apis/resource.k8s.io/v1/resourceslices"


def names(listed: JsonObject) -> list[str]:
    return [item["metadata"]["name"] for item in listed["items"]]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("", "abcd"),
        ("tier=gold", "ab"),
        ("tier==gold,zone=1", "a"),
        ("tier!=gold", "cd"),
        ("tier in (gold, tin)", "abc"),
        ("tier notin (gold,tin)", "d"),
        ("tier", "abc"),
        ("!tier", "d"),
        ("zone in (1),tier in (gold,tin)", "ac"),
    ],
)
async def test_label_selectors(api: KubeApi, selector: str, expected: str) -> None:
    """Equality and set-based requirements; NotIn and != also select objects without the label."""
    labels = {
        "a": {"tier": "gold", "zone": "1"},
        "b": {"tier": "gold"},
        "c": {"tier": "tin", "zone": "1"},
        "d": {},
    }
    for name, own in labels.items():
        await api.create(NODE, {"metadata": {"name": name, "labels": own}})
    listing = await api.list(NODE, selectors={"labelSelector": selector})
    assert "".join(item["metadata"]["name"] for item in listing.items) == expected


async def test_field_selectors_of_pods(api: KubeApi, new_pod: Build) -> None:
    """Pods are selected by node and phase; an unset field reads as empty."""
    await api.create(POD, new_pod("placed", nodeName="n1"))
    await api.create(POD, new_pod("waiting"))
    for selector, expected in {
        "spec.nodeName=n1": "placed",
        "spec.nodeName=": "waiting",
        "spec.nodeName!=n1,status.phase=Pending": "waiting",
        "metadata.name=placed,metadata.namespace=default": "placed",
    }.items():
        listing = await api.list(POD, selectors={"fieldSelector": selector})
        assert [item["metadata"]["name"] for item in listing.items] == [expected]


async def test_events_are_found_by_what_they_are_about(api: KubeApi) -> None:
    """involvedObject.* and reason select events."""
    for name in ("a", "b"):
        body = {
            "metadata": {"name": name},
            "involvedObject": {"kind": "Pod", "name": name},
            "reason": "R",
        }
        await api.create(EVENT, body, namespace="default")
    selector = "involvedObject.name=b,involvedObject.kind=Pod,reason=R"
    listing = await api.list(EVENT, selectors={"fieldSelector": selector})
    assert [item["metadata"]["name"] for item in listing.items] == ["b"]


@pytest.mark.parametrize(
    "selectors",
    [
        {"fieldSelector": "spec.devices=x"},
        {"fieldSelector": "nonsense"},
        {"labelSelector": "a in b"},
    ],
)
async def test_selectors_that_nobody_understands(api: KubeApi, selectors: dict[str, str]) -> None:
    """An unsupported field and broken syntax are 400."""
    with pytest.raises(Invalid) as caught:
        await api.list(RESOURCE_SLICE, selectors=selectors)
    assert caught.value.status == 400


async def test_pages_are_of_one_version(client: Any, new_slice: Build) -> None:
    """What changes between pages is not seen in later ones: together they are the list at the first page's time."""
    for name in "abcde":
        await client.send("POST", SLICES, new_slice(name))
    first = await client.send("GET", f"{SLICES}?limit=2")
    assert first["metadata"]["remainingItemCount"] == 3
    await client.send("DELETE", f"{SLICES}/c")
    await client.send("POST", SLICES, new_slice("cc"))
    token = first["metadata"]["continue"]
    rest = await client.send("GET", f"{SLICES}?limit=10&continue={token}")
    assert names(first) + names(rest) == list("abcde")
    assert rest["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}


async def test_an_exact_version_shows_the_past(client: Any, new_slice: Build) -> None:
    """resourceVersionMatch=Exact lists what was; a version of the future is refused for now."""
    await client.send("POST", SLICES, new_slice("a"))
    version = (await client.send("GET", SLICES))["metadata"]["resourceVersion"]
    await client.send("DELETE", f"{SLICES}/a")
    exact = f"{SLICES}?resourceVersion={version}&resourceVersionMatch=Exact"
    assert names(await client.send("GET", exact)) == ["a"]
    await client.until_cached(SLICES)
    assert names(await client.send("GET", f"{SLICES}?resourceVersion={version}")) == []
    await client.send("GET", f"{SLICES}?resourceVersion=999999", code=504)
    for nonsense in ("resourceVersion=x", "limit=x", "continue=x", "watch=1&timeoutSeconds=x"):
        await client.send("GET", f"{SLICES}?{nonsense}", code=400)


async def test_items_of_built_in_lists_do_not_say_their_kind(client: Any, new_slice: Build) -> None:
    """As with the real server: the list says it once."""
    await client.send("POST", SLICES, new_slice())
    listed = await client.send("GET", SLICES)
    assert listed["kind"] == "ResourceSliceList"
    assert not {"kind", "apiVersion"} & set(listed["items"][0])
