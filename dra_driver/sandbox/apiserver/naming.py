"""Identity of new objects: generated names, UIDs, and the metadata that only the server writes."""

from __future__ import annotations

import secrets
import uuid
from typing import Final

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import ServedKind
from dra_driver.sandbox.apiserver.objects import metadata, timestamp

_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"  # no vowels and no look-alikes, as upstream
_SUFFIX: Final = 5
_NAME: Final = 63
_SERVER_OWNED: Final = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
)


def generated_name(base: str) -> str:
    """`generateName` cut to 58 characters, and five random ones."""
    suffix = "".join(secrets.choice(_ALPHABET) for _ in range(_SUFFIX))
    return base[: _NAME - _SUFFIX] + suffix


def stamp_new(served: ServedKind, obj: JsonObject) -> None:
    """Give a new object its identity; whatever the client wrote there is gone."""
    meta = metadata(obj)
    for field in (*_SERVER_OWNED, "managedFields", "selfLink", "resourceVersion"):
        meta.pop(field, None)
    meta["uid"] = str(uuid.uuid4())
    meta["creationTimestamp"] = timestamp()
    if served.generation:
        meta["generation"] = 1


def stamp_successor(served: ServedKind, new: JsonObject, old: JsonObject) -> None:
    """Carry the identity over to a changed object; its generation grows with everything but metadata and status."""
    meta, before = metadata(new), metadata(old)
    for field in ("managedFields", "selfLink"):
        meta.pop(field, None)
    meta["resourceVersion"] = before["resourceVersion"]
    for field in _SERVER_OWNED:
        meta.pop(field, None)
        if field in before:
            meta[field] = before[field]
    if served.generation and _content(served, new) != _content(served, old):
        meta["generation"] = before.get("generation", 0) + 1


def _content(served: ServedKind, obj: JsonObject) -> JsonObject:
    apart = {"metadata", "apiVersion"} | ({"status"} if served.status else set())
    return {key: value for key, value in obj.items() if key not in apart}
