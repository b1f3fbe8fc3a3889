"""Our schemas of resource.k8s.io against Kubernetes' own OpenAPI, as kubernetes-validate ships it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver import schemas
from dra_driver.sandbox.apiserver.schemas import Schema

FOLDER = (
    Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / "v1.36.0-local-strict"
)
ALPHA_FIELDS = {
    "ints",
    "bools",
    "strings",
    "versions",
    "nodeAllocatableResourceMappings",
    "nodeAllocatableResources",
    "skipNodeOperations",
    "compatibilityGroups",
    "derivedAttributes",
    "partitionTypeAttribute",
}


@cache
def definitions() -> JsonObject:
    defs: JsonObject = json.loads((FOLDER / "_definitions.json").read_text())["$defs"]
    return defs


def resolved(schema: Any) -> JsonObject:
    """The schema behind references, and the first of alternatives that is not null."""
    while "$ref" in schema:
        schema = definitions()[schema["$ref"].rsplit("/", 1)[1]]
    return dict(schema)


def fields(schema: Schema, path: str = "") -> Iterator[tuple[str, str]]:
    """Every field below the schema with its type; alpha fields, which we do not serve, left out."""
    for name, inner in schema.get("properties", {}).items():
        if name not in ALPHA_FIELDS:
            yield from typed(resolved(inner), f"{path}.{name}")


def typed(schema: JsonObject, path: str) -> Iterator[tuple[str, str]]:
    kinds = schema.get("type", "string" if "oneOf" in schema else "object")
    kind = next(one for one in ([kinds] if isinstance(kinds, str) else kinds) if one != "null")
    yield path, "string" if kind == "number" else kind
    yield from fields(schema, path)
    for inner, step in ((schema.get("items"), "[]"), (schema.get("additionalProperties"), "{}")):
        if isinstance(inner, dict):
            yield from typed(resolved(inner), path + step)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("resourceslice", schemas.RESOURCE_SLICE),
        ("resourceclaim", schemas.RESOURCE_CLAIM),
        ("resourceclaimtemplate", schemas.RESOURCE_CLAIM_TEMPLATE),
        ("deviceclass", schemas.DEVICE_CLASS),
    ],
)
def test_our_fields_are_kubernetes_fields(name: str, ours: Schema) -> None:
    """Every stable and beta field of 1.36 is there with its type, and none that Kubernetes does not know."""
    theirs = json.loads((FOLDER / f"{name}-resource-v1.json").read_text())
    interesting = {
        key: theirs["properties"][key] for key in ("spec", "status") if key in theirs["properties"]
    }
    expected = set(fields({"properties": interesting}))
    own = {key: ours["properties"][key] for key in interesting}
    assert {pair for pair in fields({"properties": own}) if ".metadata" not in pair[0]} == {
        pair for pair in expected if ".metadata" not in pair[0]
    }
