"""A CustomResourceDefinition, as far as it is needed to serve what it defines."""

from __future__ import annotations

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.objects import metadata
from dra_driver.sandbox.apiserver.validation.findings import Findings

_SCOPES = ("Cluster", "Namespaced")


def validate_definition(new: JsonObject, old: JsonObject | None, found: Findings) -> None:
    """Group, names, scope, and at least one version, exactly one of which is stored."""
    spec = new["spec"]
    group, names = spec.get("group", ""), spec["names"]
    for field in ("plural", "kind"):
        if not names.get(field):
            found.required(f"spec.names.{field}")
    if not group:
        found.required("spec.group")
    expected = f"{names.get('plural', '')}.{group}"
    if metadata(new).get("name") != expected:
        why = f'must be spec.names.plural+"."+spec.group: {expected}'
        found.invalid("metadata.name", metadata(new).get("name"), why)
    if spec.get("scope") not in _SCOPES:
        found.unsupported("spec.scope", spec.get("scope", ""), _SCOPES)
    _validate_versions(spec.get("versions", []), found)
    if old is not None and spec.get("scope") != old["spec"]["scope"]:
        found.immutable("spec.scope", spec.get("scope"))


def _validate_versions(versions: list[JsonObject], found: Findings) -> None:
    if sum(bool(one.get("storage")) for one in versions) != 1:
        why = "must have exactly one version marked as storage version"
        found.invalid("spec.versions", [one.get("name") for one in versions], why)
    for index, version in enumerate(versions):
        if not version.get("name"):
            found.required(f"spec.versions[{index}].name")
        if "openAPIV3Schema" not in version.get("schema", {}):
            found.required(f"spec.versions[{index}].schema.openAPIV3Schema")
