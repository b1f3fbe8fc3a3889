"""What a refusal of the API server means: its `Status` body as one of our errors.

https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#response-status-kind
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dra_driver.model.errors import (
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    NotFound,
    Unavailable,
)

_FOREIGN_TEXT_LIMIT = 256
_MEANING: Mapping[int, type[KubeError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
}
_FIX: Mapping[int, str] = {
    401: "; the token is missing, expired or not accepted: renew it",
    403: "; grant it to this user by RBAC",
}


def failure_of_response(
    what: str, status: int, body: bytes, *, retry_after: str | None = None
) -> KubeError:
    """The error for an HTTP answer that is not a success. `what` says what was asked, of whom."""
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict) or parsed.get("kind") != "Status":
        parsed = {"message": body.decode("utf-8", "replace")}
    return failure_of_status(what, {**parsed, "code": status}, retry_after=retry_after)


def failure_of_status(
    what: str, status: Mapping[str, Any], *, retry_after: str | None = None
) -> KubeError:
    """The error for a `Status`, wherever it stood; 0 as its code where it has none."""
    code = status.get("code")
    code = code if isinstance(code, int) else 0
    words = [str(code), foreign_text(status.get("reason")), foreign_text(status.get("message"))]
    message = f"{what}: {' '.join(filter(None, words))}{_FIX.get(code, '')}"
    if code == 429 or code >= 500:
        seconds = _seconds(retry_after) or _seconds(_details(status).get("retryAfterSeconds"))
        return Unavailable(message, status=code, retry_after_s=seconds)
    return _MEANING.get(code, KubeError)(message, status=code)


def foreign_text(text: object) -> str:
    """Somebody else's words made fit for our messages and logs: one line, at most 256 characters."""
    if text is None:
        return ""
    line = " ".join(str(text).split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= _FOREIGN_TEXT_LIMIT else line[: _FOREIGN_TEXT_LIMIT - 3] + "..."


def _details(status: Mapping[str, Any]) -> Mapping[str, Any]:
    details = status.get("details")
    return details if isinstance(details, dict) else {}


def _seconds(value: object) -> float | None:
    # Retry-After may also be a date; nobody in Kubernetes sends one.
    try:
        seconds = float(value) if isinstance(value, (str, int)) else 0.0
    except ValueError:
        return None
    return seconds if 0 < seconds < float("inf") else None
