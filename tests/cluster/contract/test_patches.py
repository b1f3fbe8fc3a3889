"""Patches: the RFCs' own examples, and what kubectl sends for built-in kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.objects import copied
from dra_driver.sandbox.apiserver.patches import apply_operations, merge
from dra_driver.sandbox.apiserver.status import Refusal
from dra_driver.sandbox.apiserver.strategic import merge_strategically
from tests.cluster.waiting import eventually

NODES = "/api/v1/nodes"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_does_what_rfc_7386_says(target: Any, patch: Any, expected: Any) -> None:
    """The cases of the RFC's appendix."""
    assert merge(target, patch) == expected


@given(target=JSON, patch=JSON)
def test_merging_changes_neither_side(target: Any, patch: Any) -> None:
    """A patch is applied to a copy, and applying it again changes nothing more."""
    before = copied((target, patch))
    once = merge(target, patch)
    assert merge(once, patch) == once
    assert (target, patch) == before


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ({"op": "add", "path": "/a/1", "value": 9}, {"a": [1, 9, 2], "b/c": {"d~": 1}}),
        ({"op": "add", "path": "/a/-", "value": 9}, {"a": [1, 2, 9], "b/c": {"d~": 1}}),
        ({"op": "remove", "path": "/a/0"}, {"a": [2], "b/c": {"d~": 1}}),
        ({"op": "replace", "path": "/b~1c/d~0", "value": 2}, {"a": [1, 2], "b/c": {"d~": 2}}),
        ({"op": "move", "from": "/a", "path": "/x"}, {"x": [1, 2], "b/c": {"d~": 1}}),
        ({"op": "copy", "from": "/a/0", "path": "/x"}, {"a": [1, 2], "b/c": {"d~": 1}, "x": 1}),
        ({"op": "test", "path": "/a", "value": [1, 2]}, {"a": [1, 2], "b/c": {"d~": 1}}),
        ({"op": "replace", "path": "", "value": {"x": 1}}, {"x": 1}),
    ],
)
def test_json_patch_operations(operation: JsonObject, expected: JsonObject) -> None:
    """Each operation of RFC 6902, escapes in pointers included."""
    target = {"a": [1, 2], "b/c": {"d~": 1}}
    assert apply_operations(target, [operation]) == expected
    assert target == {"a": [1, 2], "b/c": {"d~": 1}}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a", "value": 2},
        {"op": "remove", "path": "/missing"},
        {"op": "add", "path": "/list/5", "value": 1},
        {"op": "add", "path": "/a/b", "value": 1},
        {"op": "replace", "path": "a", "value": 1},
        {"op": "replace", "path": "/missing", "value": 1},
        {"op": "explode", "path": "/a"},
        {"path": "/a"},
    ],
)
def test_a_json_patch_that_does_not_apply_is_refused(operation: JsonObject) -> None:
    """All of it: an earlier operation of the same patch leaves no trace."""
    target = {"a": 1, "list": []}
    with pytest.raises(Refusal):
        apply_operations(target, [{"op": "add", "path": "/x", "value": 1}, operation])
    assert target == {"a": 1, "list": []}


POD: JsonObject = {
    "containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}],
    "volumes": [{"name": "v", "emptyDir": {}}],
    "finalizers": ["x", "y"],
    "args": [1, 2],
}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        (
            {"containers": [{"name": "b", "image": "2"}, {"name": "c"}]},
            {
                "containers": [
                    {"name": "a", "image": "1"},
                    {"name": "b", "image": "2"},
                    {"name": "c"},
                ]
            },
        ),
        (
            {"containers": [{"name": "a", "$patch": "delete"}]},
            {"containers": [POD["containers"][1]]},
        ),
        ({"containers": [{"name": "z"}, {"$patch": "replace"}]}, {"containers": [{"name": "z"}]}),
        (
            {
                "volumes": [
                    {"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}
                ]
            },
            {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]},
        ),
        ({"$setElementOrder/containers": [{"name": "b"}], "containers": []}, {}),
        ({"$deleteFromPrimitiveList/finalizers": ["x"]}, {"finalizers": ["y"]}),
        ({"finalizers": ["z"]}, {"finalizers": ["x", "y", "z"]}),
        ({"args": [3]}, {"args": [3]}),
        ({"args": None}, {"args": ...}),
    ],
)
def test_strategic_merge(patch: JsonObject, expected: JsonObject) -> None:
    """Lists of maps merge by key, directives do what they say, all else is a merge patch."""
    merged = {key: value for key, value in (POD | expected).items() if value is not ...}
    before = copied(POD)
    assert merge_strategically(POD, patch) == merged
    assert before == POD


async def test_patch_languages_over_http(client: Any, definition: JsonObject) -> None:
    """Each language by its media type; strategic merge of custom kinds is 415."""
    await client.send("POST", NODES, {"metadata": {"name": "n", "labels": {"a": "1"}}})
    patches: dict[str, Callable[[str], Any]] = {
        "application/merge-patch+json": lambda value: {"metadata": {"labels": {"a": value}}},
        "application/strategic-merge-patch+json": lambda value: {
            "metadata": {"labels": {"a": value}}
        },
        "application/json-patch+json": lambda value: [
            {"op": "replace", "path": "/metadata/labels/a", "value": value}
        ],
    }
    for value, (media, patch) in zip("xyz", patches.items(), strict=True):
        node = await client.send("PATCH", f"{NODES}/n", patch(value), media=media)
        assert node["metadata"]["labels"] == {"a": value}
    await client.send("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    widgets = "/apis/example.com/v1alpha1/widgets"

    async def is_served() -> bool:
        async with client.session.get(f"{client.url}{widgets}") as answer:
            return bool(answer.status == 200)

    await eventually(is_served)
    widget = {"apiVersion": "example.com/v1alpha1", "kind": "Widget", "metadata": {"name": "w"}}
    await client.send("POST", widgets, widget)
    strategic = "application/strategic-merge-patch+json"
    await client.send("PATCH", f"{widgets}/w", {}, media=strategic, code=415)
