"""Names, labels and what must not change in any object's metadata."""

from __future__ import annotations

import re
from typing import Final

from dra_driver.model.names import is_dns_label, is_dns_subdomain
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import NAMESPACE, ServedKind
from dra_driver.sandbox.apiserver.objects import is_terminating, metadata
from dra_driver.sandbox.apiserver.validation.findings import DNS_LABEL, DNS_SUBDOMAIN, Findings

_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
QUALIFIED_NAME: Final = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character"
)
_LABEL_VALUE: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character"
)


def is_label_key(text: str) -> bool:
    """`name` or `dns.subdomain/name`, the name at most 63 characters."""
    prefix, slash, name = text.rpartition("/")
    return _NAME.fullmatch(name) is not None and (not slash or is_dns_subdomain(prefix))


def is_label_value(text: str) -> bool:
    """Empty, or at most 63 characters like a label's name."""
    return not text or _NAME.fullmatch(text) is not None


def validate_metadata(
    served: ServedKind, new: JsonObject, old: JsonObject | None, found: Findings
) -> None:
    """Rules that hold for every kind."""
    meta = metadata(new)
    name = meta.get("name", "")
    if not name:
        found.required("metadata.name", "name or generateName is required")
    elif served.resource == NAMESPACE.resource:
        found.check("metadata.name", name, is_dns_label, DNS_LABEL)
    else:
        found.check("metadata.name", name, is_dns_subdomain, DNS_SUBDOMAIN)
    _validate_keys(meta, found)
    _validate_owners(meta, found)
    if old is not None and is_terminating(old):
        added = set(meta.get("finalizers", ())) - set(metadata(old).get("finalizers", ()))
        if added:
            why = f"no new finalizers can be added if the object is being deleted, found new finalizers {sorted(added)}"
            found.forbidden("metadata.finalizers", why)


def _validate_keys(meta: JsonObject, found: Findings) -> None:
    for key, value in meta.get("labels", {}).items():
        if not is_label_key(key):
            found.invalid("metadata.labels", key, QUALIFIED_NAME)
        if not is_label_value(value):
            found.invalid("metadata.labels", value, _LABEL_VALUE)
    for key in meta.get("annotations", {}):
        if not is_label_key(key.lower()):
            found.invalid("metadata.annotations", key, QUALIFIED_NAME)
    for finalizer in meta.get("finalizers", ()):
        if not is_label_key(finalizer):
            found.invalid("metadata.finalizers", finalizer, QUALIFIED_NAME)


def _validate_owners(meta: JsonObject, found: Findings) -> None:
    for index, owner in enumerate(meta.get("ownerReferences", ())):
        path = f"metadata.ownerReferences[{index}]"
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                found.invalid(f"{path}.{field}", owner.get(field, ""), f"{field} must not be empty")
    controllers = [one for one in meta.get("ownerReferences", ()) if one.get("controller")]
    if len(controllers) > 1:
        why = "Only one reference can have Controller set to true"
        found.invalid("metadata.ownerReferences", [one["name"] for one in controllers], why)
