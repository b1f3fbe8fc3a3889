"""What a client reads to find out what is served: versions, groups, resources, and OpenAPI v3 documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, Final

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import Catalog, ServedKind

_VERBS: Final = (
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
)
_PATCH_TYPES: Final = ("application/json-patch+json", "application/merge-patch+json")


def document(catalog: Catalog, version: str, path: str) -> JsonObject | None:
    """The document served at this path by a server of this version (like `v1.37.1`), or None."""
    answer: JsonObject | None = None
    match path.strip("/").split("/"):
        case ["version"]:
            answer = _version_info(version)
        case ["api"]:
            answer = {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["api", group_version]:
            answer = _resource_list(catalog, group_version)
        case ["apis"]:
            groups = list(_groups(catalog))
            answer = {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["apis", group]:
            answer = _group(catalog, group)
        case ["apis", group, group_version]:
            answer = _resource_list(catalog, f"{group}/{group_version}")
        case ["openapi", "v3"]:
            answer = _openapi_index(catalog)
        case ["openapi", "v3", *root]:
            answer = _openapi_document(catalog, version, f"/{'/'.join(root)}")
    return answer


def _version_info(version: str) -> JsonObject:
    """`/version`."""
    major, minor, _ = version.removeprefix("v").split(".", 2)
    return {
        "major": major,
        "minor": minor,
        "gitVersion": version,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "none",
        "platform": "linux/amd64",
    }


def _group(catalog: Catalog, name: str) -> JsonObject | None:
    """`/apis/<group>`."""
    found = next((one for one in _groups(catalog) if one["name"] == name), None)
    return None if found is None else {"kind": "APIGroup", "apiVersion": "v1", **found}


def _resource_list(catalog: Catalog, group_version: str) -> JsonObject | None:
    """`/api/v1` and `/apis/<group>/<version>`."""
    kinds = [one for one in catalog.all() if one.kind.api_version == group_version]
    if not kinds:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": [entry for served in kinds for entry in _entries(served)],
    }


def _openapi_index(catalog: Catalog) -> JsonObject:
    """`/openapi/v3`: where each version's document is."""
    roots = sorted({served.kind.root.lstrip("/") for served in catalog.all()})
    return {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in roots}}


def _openapi_document(catalog: Catalog, version: str, root: str) -> JsonObject | None:
    """One version's document: paths that say that fields are validated here, and the kinds' schemas."""
    kinds = [served for served in catalog.all() if served.kind.root == root]
    if not kinds:
        return None
    return {
        "openapi": "3.0.0",
        "info": {"title": "dra-driver sandbox", "version": version},
        "paths": {path: item for served in kinds for path, item in _paths(served)},
        "components": {"schemas": {_schema_name(served): _schema(served) for served in kinds}},
    }


def _groups(catalog: Catalog) -> Iterator[JsonObject]:
    served = sorted({(one.kind.group, one.kind.version) for one in catalog.all() if one.kind.group})
    for name, versions in groupby(served, key=lambda pair: pair[0]):
        listed = [
            {"groupVersion": f"{name}/{version}", "version": version} for _, version in versions
        ]
        yield {"name": name, "versions": listed, "preferredVersion": listed[-1]}


def _entries(served: ServedKind) -> Iterator[JsonObject]:
    kind = served.kind
    entry: JsonObject = {"name": kind.plural, "singularName": kind.kind.lower()}
    entry |= {"namespaced": kind.namespaced, "kind": kind.kind, "verbs": list(_VERBS)}
    if served.short_names:
        entry["shortNames"] = list(served.short_names)
    if served.categories:
        entry["categories"] = list(served.categories)
    yield entry
    base = {"singularName": "", "namespaced": kind.namespaced}
    if served.status:
        verbs = {"name": f"{kind.plural}/status", "kind": kind.kind}
        yield base | verbs | {"verbs": ["get", "patch", "update"]}
    if kind.plural == "pods" and not kind.group:
        yield base | {"name": "pods/binding", "kind": "Binding", "verbs": ["create"]}


def _schema_name(served: ServedKind) -> str:
    group_name = served.kind.group or "core"
    return f"io.k8s.{group_name}.{served.kind.version}.{served.kind.kind}"


def _identity(served: ServedKind) -> JsonObject:
    kind = served.kind
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _schema(served: ServedKind) -> Mapping[str, Any]:
    identity = _identity(served)
    return {**served.schema, "x-kubernetes-group-version-kind": [identity]}


def _paths(served: ServedKind) -> Iterator[tuple[str, JsonObject]]:
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string"}}
        for name in ("dryRun", "fieldManager", "fieldValidation")
    ]
    reference = {"$ref": f"#/components/schemas/{_schema_name(served)}"}
    body = {"content": {"application/json": {"schema": reference}}}

    def operation(action: str, content: JsonObject | None = None) -> JsonObject:
        said = {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _identity(served),
            "responses": {"200": {"description": "OK", **body}},
        }
        return said | ({"parameters": parameters, "requestBody": content} if content else {})

    patches = {"content": {media: {"schema": {"type": "object"}} for media in _PATCH_TYPES}}
    collection = served.kind.path("{namespace}" if served.kind.namespaced else None)
    yield collection, {"get": operation("list"), "post": operation("post", body)}
    yield (
        f"{collection}/{{name}}",
        {
            "get": operation("get"),
            "put": operation("put", body),
            "patch": operation("patch", patches),
            "delete": operation("delete"),
        },
    )
