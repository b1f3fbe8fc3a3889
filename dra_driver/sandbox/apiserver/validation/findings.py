"""What is wrong with an object, field by field, in the words of the real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Any

from dra_driver.sandbox.apiserver.status import Cause

DNS_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
DNS_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)


class Findings:
    """Collects causes; an object without causes is valid."""

    def __init__(self) -> None:
        self.causes: list[Cause] = []

    def invalid(self, path: str, value: Any, why: str) -> None:
        """The value breaks a rule."""
        self._add(path, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {why}")

    def immutable(self, path: str, value: Any) -> None:
        """The value was changed, and must not be."""
        self.invalid(path, value, "field is immutable")

    def mistyped(self, path: str, value: Any, expected: str) -> None:
        """The value is not of the field's type."""
        actual = _type_name(value)
        why = f'{path} in body must be of type {expected}: "{actual}"'
        self._add(path, "FieldValueTypeInvalid", f'Invalid value: "{actual}": {why}')

    def required(self, path: str, why: str = "") -> None:
        """The field is missing."""
        self._add(path, "FieldValueRequired", "Required value" + (f": {why}" if why else ""))

    def forbidden(self, path: str, why: str) -> None:
        """The field must not be there."""
        self._add(path, "FieldValueForbidden", f"Forbidden: {why}")

    def duplicate(self, path: str, value: Any) -> None:
        """The value was given before."""
        self._add(path, "FieldValueDuplicate", f"Duplicate value: {_shown(value)}")

    def missing(self, path: str, value: Any) -> None:
        """The value names something that does not exist."""
        self._add(path, "FieldValueNotFound", f"Not found: {_shown(value)}")

    def unsupported(self, path: str, value: Any, supported: Iterable[str]) -> None:
        """The value is none of the known ones."""
        known = ", ".join(map(_shown, supported))
        message = f"Unsupported value: {_shown(value)}: supported values: {known}"
        self._add(path, "FieldValueNotSupported", message)

    def bound(self, path: str, value: Sized, limit: int) -> None:
        """Hold a list to at most so many items, a text to so many bytes."""
        if isinstance(value, str):
            if len(value.encode()) > limit:
                message = f"Too long: may not be more than {limit} bytes"
                self._add(path, "FieldValueTooLong", message)
        elif len(value) > limit:
            message = f"Too many: {len(value)}: must have at most {limit} items"
            self._add(path, "FieldValueTooMany", message)

    def check(self, path: str, value: str, is_right: Callable[[str], bool], why: str) -> None:
        """Hold a text that must be there to a syntax."""
        if not value:
            self.required(path)
        elif not is_right(value):
            self.invalid(path, value, why)

    def unique(self, path: str, keys: Sequence[str]) -> None:
        """Hold the list at `path`, whose items have these keys, to having none twice."""
        for index, key in enumerate(keys):
            if key in keys[:index]:
                self.duplicate(f"{path}[{index}]", key)

    def _add(self, path: str, reason: str, message: str) -> None:
        self.causes.append(Cause(field=path, reason=reason, message=message))


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _type_name(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")
