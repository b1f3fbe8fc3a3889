"""Bringing what a client sent into the shape of its kind, as decoding into Go types or pruning by a schema does.

Unknown fields go (or are reported, for strict clients), nulls count as absent, quantities take their canonical form,
defaults are filled in. The result shares nothing with the input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from dra_driver.model.errors import QuantityError
from dra_driver.model.quantity import Quantity
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import ServedKind
from dra_driver.sandbox.apiserver.objects import copied
from dra_driver.sandbox.apiserver.schemas import Schema
from dra_driver.sandbox.apiserver.status import bad_request, invalid
from dra_driver.sandbox.apiserver.validation.findings import Findings

_OPEN_KEY: Final = "x-kubernetes-preserve-unknown-fields"
_LIMITS: Final = frozenset({"enum", "minimum", "maximum", "maxItems", "maxLength", "pattern"})
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def decode(served: ServedKind, body: JsonObject, *, strict: bool = False) -> JsonObject:
    """A copy of `body` in the kind's shape. 400 for wrong types, and for unknown fields of strict clients.

    Custom resources answer 422 where they break their schema, as the real server does.
    """
    decoder = _Decoder()
    decoded: JsonObject = decoder.value(served.schema, body, "")
    decoded.setdefault("metadata", {})
    kind = served.kind
    refused = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
    if decoder.findings.causes and not served.custom:
        raise bad_request(f"{refused}{decoder.findings.causes[0]}")
    if decoder.findings.causes:
        raise invalid(served, decoded["metadata"].get("name", ""), decoder.findings.causes)
    if strict and decoder.unknown:
        fields = ", ".join(f'unknown field "{path}"' for path in decoder.unknown)
        raise bad_request(f"{refused}strict decoding error: {fields}")
    return decoded


class _Decoder:
    """One run over one object."""

    def __init__(self) -> None:
        self.findings = Findings()
        self.unknown: list[str] = []

    def value(self, schema: Schema, value: Any, path: str) -> Any:
        if schema.get("x-kubernetes-int-or-string") and isinstance(value, int | float | str):
            return self._quantity(str(value), path) if _is_quantity(schema) else value
        expected = schema.get("type")
        if expected and not _is_of_type(value, expected):
            self.findings.mistyped(path, value, expected)
            return copied(value)
        if not _LIMITS.isdisjoint(schema):
            self._limit(schema, value, path)
        if isinstance(value, dict):
            return self._object(schema, value, path)
        if isinstance(value, list):
            items = schema.get("items", {_OPEN_KEY: True})
            return [self.value(items, item, f"{path}[{at}]") for at, item in enumerate(value)]
        return value

    def _object(self, schema: Schema, value: JsonObject, path: str) -> JsonObject:
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties")
        decoded = {}
        for key, item in value.items():
            inner = f"{path}.{key}" if path else key
            if item is None and not _is_nullable(properties.get(key)):
                continue
            if key in properties:
                decoded[key] = self.value(properties[key], item, inner)
            elif others:
                keyed = f"{path}[{key}]"
                decoded[key] = self.value(others if others is not True else {}, item, keyed)
            elif schema.get(_OPEN_KEY) or not schema:
                decoded[key] = copied(item)
            else:
                self.unknown.append(inner)
        for key, inner_schema in properties.items():
            if key not in decoded and "default" in inner_schema:
                decoded[key] = copied(inner_schema["default"])
        for key in schema.get("required", ()):
            if key not in decoded:
                self.findings.required(f"{path}.{key}" if path else key)
        return decoded

    def _limit(self, schema: Schema, value: Any, path: str) -> None:
        if "enum" in schema and value not in schema["enum"]:
            self.findings.unsupported(path, value, map(str, schema["enum"]))
        if isinstance(value, int | float) and value < schema.get("minimum", value):
            least = schema["minimum"]
            self.findings.invalid(
                path, value, f"{path} in body should be greater than or equal to {least}"
            )
        if isinstance(value, int | float) and value > schema.get("maximum", value):
            most = schema["maximum"]
            self.findings.invalid(
                path, value, f"{path} in body should be less than or equal to {most}"
            )
        if isinstance(value, str | list):
            limit = schema.get("maxItems" if isinstance(value, list) else "maxLength", len(value))
            self.findings.bound(path, value, limit)
        if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
            self.findings.invalid(path, value, f"{path} in body should match '{schema['pattern']}'")

    def _quantity(self, text: str, path: str) -> str:
        try:
            return str(Quantity.parse(text))
        except QuantityError as error:
            self.findings.invalid(path, text, str(error))
            return text


def _is_of_type(value: Any, expected: str) -> bool:
    if isinstance(value, bool):
        return expected == "boolean"
    return isinstance(value, _TYPES[expected])


def _is_quantity(schema: Schema) -> bool:
    return schema.get("format") == "quantity"


def _is_nullable(schema: Schema | None) -> bool:
    return schema is not None and bool(schema.get("nullable"))
