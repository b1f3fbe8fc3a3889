"""What a namespace has to say about the objects that are created in it."""

from __future__ import annotations

from typing import Final

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import NAMESPACE, ServedKind
from dra_driver.sandbox.apiserver.objects import inside, is_terminating, metadata
from dra_driver.sandbox.apiserver.status import forbidden, not_found
from dra_driver.sandbox.apiserver.validation.findings import Findings

ADMIN_ACCESS_LABEL: Final = "resource.kubernetes.io/admin-access"
_SPECS: Final = {
    "resourceclaims.resource.k8s.io": ("spec",),
    "resourceclaimtemplates.resource.k8s.io": ("spec", "spec"),
}


def admit(
    served: ServedKind, new: JsonObject, namespace: JsonObject | None, found: Findings
) -> None:
    """404 without the namespace, 403 while it goes; admin access only where it is labelled for that."""
    if not served.kind.namespaced:
        return
    name = metadata(new)["namespace"]
    if namespace is None:
        raise not_found(NAMESPACE.resource, name)
    if is_terminating(namespace):
        why = f"unable to create new content in namespace {name} because it is being terminated"
        refusal = forbidden(served.resource, metadata(new).get("name", ""), why)
        refusal.details["causes"] = [{"reason": "NamespaceTerminating", "message": why}]
        raise refusal
    labels = metadata(namespace).get("labels", {})
    path = _SPECS.get(str(served.resource))
    if path is None or labels.get(ADMIN_ACCESS_LABEL) == "true":
        return
    for index, request in enumerate(inside(new, *path, "devices", "requests") or ()):
        if inside(request, "exactly", "adminAccess"):
            found.forbidden(
                f"{'.'.join(path)}.devices.requests[{index}].exactly.adminAccess",
                f"admin access to devices requires the `{ADMIN_ACCESS_LABEL}: true` label on the containing namespace",
            )
