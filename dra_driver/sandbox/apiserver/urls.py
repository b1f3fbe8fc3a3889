"""From a URL's path to what the request is about."""

from __future__ import annotations

from typing import Final

from dra_driver.sandbox.apiserver.catalog import NAMESPACE, POD, Catalog, ServedKind
from dra_driver.sandbox.apiserver.resources import Target
from dra_driver.sandbox.apiserver.status import unknown_path

_OF_NAMESPACES: Final = frozenset({"status"})


def target_of(catalog: Catalog, path: str) -> Target:
    """The target below `/api/v1/` or `/apis/<group>/<version>/`; 404 for anything that is not served."""
    root, *parts = path.strip("/").split("/")
    if root == "api" and len(parts) >= 2:
        group, version, *rest = "", *parts
    elif root == "apis" and len(parts) >= 3:
        group, version, *rest = parts
    else:
        raise unknown_path()
    namespace = ""
    if rest[0] == NAMESPACE.kind.plural and len(rest) >= 3 and rest[2] not in _OF_NAMESPACES:
        _, namespace, *rest = rest
    if len(rest) > 3:
        raise unknown_path()
    plural, name, subresource = (*rest, "", "")[:3]
    served = catalog.find(group, version, plural)
    if served is None or not _fits(served, namespace, name, subresource):
        raise unknown_path()
    return Target(served=served, namespace=namespace, name=name, subresource=subresource)


def _fits(served: ServedKind, namespace: str, name: str, subresource: str) -> bool:
    placed = bool(namespace) == served.kind.namespaced or (not name and not namespace)
    known = {""}
    if served.status:
        known.add("status")
    if served.resource == POD.resource:
        known.add("binding")
    return placed and subresource in known
