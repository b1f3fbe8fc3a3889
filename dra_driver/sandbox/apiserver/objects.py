"""Small questions about JSON objects, asked everywhere in the server."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from dra_driver.ports import JsonObject

T = TypeVar("T")


def copied(value: T) -> T:
    """A deep copy of plain JSON, several times faster than copy.deepcopy."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}  # type: ignore[return-value]
    if isinstance(value, list):
        return [copied(item) for item in value]  # type: ignore[return-value]
    return value


def inside(value: Any, *path: str) -> Any:
    """What is found by going down these keys, or None."""
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def metadata(obj: Mapping[str, Any]) -> JsonObject:
    """The object's metadata, which is always there once an object was decoded."""
    found: JsonObject = obj["metadata"]
    return found


def is_terminating(obj: Mapping[str, Any]) -> bool:
    """Whether the object was deleted and only waits for finalizers or its grace period."""
    return "deletionTimestamp" in metadata(obj)


def timestamp(*, ahead_s: int = 0) -> str:
    """Now, or so many seconds later, as metadata writes it (RFC 3339, whole seconds, UTC)."""
    moment = datetime.now(UTC) + timedelta(seconds=ahead_s)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def token(content: JsonObject) -> str:
    """An opaque text for a client to hand back."""
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


def opened(text: str) -> JsonObject:
    """What a token was made of; raise ValueError for anything else."""
    content: JsonObject = json.loads(base64.urlsafe_b64decode(text))
    return content
