"""A Pod, as far as devices go: its containers may only use claims that it has."""

from __future__ import annotations

from dra_driver.model.names import is_dns_label
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.objects import inside
from dra_driver.sandbox.apiserver.validation.findings import DNS_LABEL, Findings


def validate_pod(new: JsonObject, old: JsonObject | None, found: Findings) -> None:
    """Containers, their names, and the claims of pod and containers."""
    spec = new["spec"]
    if not spec.get("containers"):
        found.required("spec.containers")
    claims = spec.get("resourceClaims", [])
    _validate_claims(claims, found)
    known = {one.get("name") for one in claims}
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field, [])):
            path = f"spec.{field}[{index}]"
            found.check(f"{path}.name", container.get("name", ""), is_dns_label, DNS_LABEL)
            used = inside(container, "resources", "claims") or ()
            for place, claim in enumerate(used):
                if claim.get("name") not in known:
                    where = f"{path}.resources.claims[{place}].name"
                    found.missing(where, claim.get("name"))
    if old is not None and claims != old["spec"].get("resourceClaims", []):
        found.forbidden("spec.resourceClaims", "pod updates may not change the claims of a pod")
    _validate_node(spec, old, found)


def _validate_claims(claims: list[JsonObject], found: Findings) -> None:
    found.unique("spec.resourceClaims", [one.get("name", "") for one in claims])
    for index, claim in enumerate(claims):
        path = f"spec.resourceClaims[{index}]"
        found.check(f"{path}.name", claim.get("name", ""), is_dns_label, DNS_LABEL)
        how_many = "exactly one" if "resourceClaimName" in claim else "one"
        if ("resourceClaimName" in claim) == ("resourceClaimTemplateName" in claim):
            why = f"must specify {how_many} of: `resourceClaimName`, `resourceClaimTemplateName`"
            found.invalid(path, claim, why)


def _validate_node(spec: JsonObject, old: JsonObject | None, found: Findings) -> None:
    if old is not None and spec.get("nodeName", "") != old["spec"].get("nodeName", ""):
        found.forbidden("spec", "pod updates may not change fields other than a few; bind the pod")
