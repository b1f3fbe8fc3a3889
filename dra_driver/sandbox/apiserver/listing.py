"""Lists: of now, or of a remembered version; whole, or page by page over one and the same version."""

from __future__ import annotations

from dataclasses import dataclass

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import ServedKind
from dra_driver.sandbox.apiserver.objects import opened, token
from dra_driver.sandbox.apiserver.selectors import Selection
from dra_driver.sandbox.apiserver.status import bad_request, version_too_large
from dra_driver.sandbox.apiserver.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which part of a list is wanted. `version` 0 means now; `limit` 0 means all; `after` is the last key seen."""

    version: int = 0
    limit: int = 0
    after: tuple[str, str] = ("", "")

    @classmethod
    def parse(cls, *, resource_version: str, match: str, limit: str, continuation: str) -> Page:
        """Read the query parameters; an unmatched resourceVersion means "not older than", which now always is."""
        size = parse_number("limit", limit)
        if continuation:
            try:
                content = opened(continuation)
                namespace, name = content["after"]
                return cls(version=content["version"], limit=size, after=(namespace, name))
            except (ValueError, KeyError) as error:
                raise bad_request(f"continue key is not valid: {error}") from error
        version = parse_number("resourceVersion", resource_version)
        return cls(version=version if match == "Exact" else -version, limit=size)


def parse_number(parameter: str, text: str) -> int:
    """A query parameter as a number; none is 0, anything else is 400."""
    if text and not text.isdecimal():
        raise bad_request(f'{parameter}: Invalid value: "{text}": must be a whole number')
    return int(text or "0")


def list_objects(store: Store, served: ServedKind, selection: Selection, page: Page) -> JsonObject:
    """A List object. Its items share structure with the store; built-in kinds' items lack kind and apiVersion."""
    if abs(page.version) > store.version:
        raise version_too_large(abs(page.version), store.version)
    version = page.version if page.version > 0 else store.version
    objects = store.objects(served.resource)
    if version < store.version:
        objects = store.objects_at(served.resource, version)
    chosen = [
        (key, obj)
        for key, obj in sorted(objects.items(), key=lambda pair: pair[0])
        if key > page.after and selection.admits(obj)
    ]
    part = chosen[: page.limit] if page.limit else chosen
    meta: JsonObject = {"resourceVersion": str(version)}
    if len(part) < len(chosen):
        meta["continue"] = token({"version": version, "after": part[-1][0]})
        meta["remainingItemCount"] = len(chosen) - len(part)
    return {
        "kind": f"{served.kind.kind}List",
        "apiVersion": served.kind.api_version,
        "metadata": meta,
        "items": [obj if served.custom else _without_kind(obj) for _, obj in part],
    }


def _without_kind(obj: JsonObject) -> JsonObject:
    return {key: value for key, value in obj.items() if key not in {"kind", "apiVersion"}}
