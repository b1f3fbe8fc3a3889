"""Refusals: what the server answers instead of an object, in the words of the real one.

A `Refusal` becomes an HTTP response with a `Status` body, an ERROR event inside a watch, or, for callers in this
process, one of `dra_driver.model.errors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dra_driver.model.errors import DraError
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import GroupResource, ServedKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One thing that is wrong with one field: `reason` is a word like FieldValueInvalid."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class Refusal(DraError):
    """The request is refused with this HTTP code; `details` is the Status' field of that name."""

    def __init__(
        self, code: int, reason: str, message: str, details: JsonObject | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status_reason = reason
        self.details = details or {}

    def body(self) -> JsonObject:
        """The `Status` object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.status_reason,
            "details": self.details,
            "code": self.code,
        }


def success(resource: GroupResource, name: str, uid: str = "") -> JsonObject:
    """The `Status` object of a request that leaves nothing else to answer with."""
    details = {"name": name, "group": resource.group, "kind": resource.plural, "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }


def not_found(resource: GroupResource, name: str) -> Refusal:
    """404: there is no such object."""
    return Refusal(
        404, "NotFound", f'{resource} "{name}" not found', _details(resource, resource.plural, name)
    )


def unknown_path() -> Refusal:
    """404: nothing is served there."""
    return Refusal(404, "NotFound", "the server could not find the requested resource")


def already_exists(resource: GroupResource, name: str) -> Refusal:
    """409: the name is taken."""
    return Refusal(
        409,
        "AlreadyExists",
        f'{resource} "{name}" already exists',
        _details(resource, resource.plural, name),
    )


def conflict(resource: GroupResource | str, name: str, why: str) -> Refusal:
    """409: the object is not in the state that the request is about."""
    details: JsonObject = {"name": name, "kind": str(resource)}
    if isinstance(resource, GroupResource):
        details = _details(resource, resource.plural, name)
    return Refusal(
        409, "Conflict", f'Operation cannot be fulfilled on {resource} "{name}": {why}', details
    )


def modified(resource: GroupResource, name: str) -> Refusal:
    """409: somebody else wrote since the object was read."""
    return conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )


def bad_request(message: str) -> Refusal:
    """400: the request cannot be understood."""
    return Refusal(400, "BadRequest", message)


def forbidden(resource: GroupResource, name: str, why: str) -> Refusal:
    """403: understood, and refused."""
    return Refusal(
        403,
        "Forbidden",
        f'{resource} "{name}" is forbidden: {why}',
        _details(resource, resource.plural, name),
    )


def invalid(served: ServedKind, name: str, causes: Sequence[Cause]) -> Refusal:
    """422: the object breaks these rules."""
    listed = ", ".join(map(str, causes))
    said = listed if len(causes) == 1 else f"[{listed}]"
    title = ".".join(filter(None, (served.kind.kind, served.kind.group)))
    details = _details(served.resource, served.kind.kind, name)
    details["causes"] = [
        {"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes
    ]
    return Refusal(422, "Invalid", f'{title} "{name}" is invalid: {said}', details)


def expired(version: int, oldest: int) -> Refusal:
    """410: the server has forgotten what happened after that resourceVersion."""
    return Refusal(410, "Expired", f"too old resource version: {version} ({oldest})")


def version_too_large(version: int, current: int) -> Refusal:
    """504: that resourceVersion does not exist yet."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return Refusal(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {version}, current: {current}",
        {"causes": [cause], "retryAfterSeconds": 1},
    )


def method_not_allowed(verb: str) -> Refusal:
    """405: the path exists, but not for this method."""
    return Refusal(
        405, "MethodNotAllowed", f"{verb} is not supported on the requested resource by the sandbox"
    )


def unsupported_media_type(content_type: str, supported: Sequence[str]) -> Refusal:
    """415: the body is in a language that is not spoken here."""
    return Refusal(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format ({content_type}) - "
        f"accepted media types include: {', '.join(supported)}",
    )


def _details(resource: GroupResource, kind: str, name: str) -> JsonObject:
    details = {"name": name, "group": resource.group, "kind": kind}
    return {key: value for key, value in details.items() if value}
