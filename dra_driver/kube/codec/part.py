"""Reading JSON whose shape is promised but not certain, and leaving out of JSON what says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from dra_driver.model.errors import Invalid, QuantityError
from dra_driver.model.quantity import Quantity
from dra_driver.ports import JsonObject

T = TypeVar("T")


class Part:
    """A JSON object inside an API object; each getter returns what it promises or raises Invalid naming object and field.

    A field that is null counts as absent, as in Kubernetes.
    """

    __slots__ = ("_owner", "_path", "_values")

    def __init__(self, owner: str, path: str, values: Any) -> None:
        self._owner = owner
        self._path = path
        if not isinstance(values, dict):
            raise Invalid(
                f"{owner}: {path or 'it'} is {_type(values)}, not an object; its writer is broken"
            )
        self._values: Mapping[str, Any] = values

    def has(self, key: str) -> bool:
        """Whether the field is there."""
        return self._values.get(key) is not None

    def text(self, key: str) -> str:
        """A text that must be there and must not be empty."""
        value = self._typed(key, str)
        if not value:
            raise self.odd(key, "is missing")
        return value

    def optional_text(self, key: str) -> str | None:
        """A text, or None for an absent or empty one."""
        return self._typed(key, str) or None

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number; without a default it must be there."""
        value = self._typed(key, int)
        if value is None:
            value = default
        if value is None:
            raise self.odd(key, "is missing")
        return value

    def flag(self, key: str) -> bool:
        """True or False, absent being False."""
        return self._typed(key, bool) or False

    def choice(self, key: str, options: tuple[T, ...], default: T | None = None) -> T:
        """One of the options; raises Invalid for any other value."""
        value = self._values.get(key)
        if value is None and default is not None:
            return default
        for option in options:
            if value == option:
                return option
        raise self.odd(key, f"is {value!r}, not one of {', '.join(map(str, options))}")

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, absent being empty."""
        values = self._typed(key, list) or []
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise self.odd(f"{key}[{index}]", f"is {_type(value)}, not a text")
        return tuple(values)

    def opaque(self, key: str) -> Mapping[str, Any]:
        """An object that is none of our business."""
        value: dict[str, Any] | None = self._typed(key, dict)
        if value is None:
            raise self.odd(key, "is missing")
        return value

    def part(self, key: str) -> Part:
        """An object that must be there."""
        if not self.has(key):
            raise self.odd(key, "is missing")
        return Part(self._owner, self._at(key), self._values[key])

    def optional_part(self, key: str) -> Part | None:
        """An object, or None."""
        return self.part(key) if self.has(key) else None

    def parts(self, key: str) -> Iterator[Part]:
        """A list of objects, absent being empty."""
        for index, value in enumerate(self._typed(key, list) or []):
            yield Part(self._owner, f"{self._at(key)}[{index}]", value)

    def entries(self, key: str) -> Iterator[tuple[str, Part]]:
        """A map of objects, absent being empty."""
        for name, value in (self._typed(key, dict) or {}).items():
            yield name, Part(self._owner, f"{self._at(key)}[{name}]", value)

    def quantity(self, key: str) -> Quantity:
        """A quantity that must be there."""
        if not self.has(key):
            raise self.odd(key, "is missing")
        return self._quantity(key, self._values[key])

    def optional_quantity(self, key: str) -> Quantity | None:
        """A quantity, or None."""
        return self.quantity(key) if self.has(key) else None

    def quantities(self, key: str) -> dict[str, Quantity]:
        """A map of quantities, absent being empty."""
        values = (self._typed(key, dict) or {}).items()
        return {name: self._quantity(f"{key}[{name}]", value) for name, value in values}

    def quantity_list(self, key: str) -> tuple[Quantity, ...]:
        """A list of quantities, absent being empty."""
        values = enumerate(self._typed(key, list) or [])
        return tuple(self._quantity(f"{key}[{index}]", value) for index, value in values)

    def odd(self, key: str, complaint: str) -> Invalid:
        """The error for a field that is not as promised."""
        return Invalid(f"{self._owner}: {self._at(key)} {complaint}; correct the object")

    def _quantity(self, key: str, value: Any) -> Quantity:
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise self.odd(key, f"is {_type(value)}, not a quantity")
        try:
            return Quantity.parse(str(value))
        except QuantityError as error:
            raise self.odd(key, f"is wrong: {error}") from error

    def _typed(self, key: str, kind: type[T]) -> T | None:
        value = self._values.get(key)
        if value is None:
            return None
        # In Python a bool is an int; in JSON it is not.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.odd(key, f"is {_type(value)}, not {_NAMES[kind]}")
        return value

    def _at(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key


_NAMES: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def _type(value: object) -> str:
    return "null" if value is None else _NAMES.get(type(value), f"a {type(value).__name__}")


def object_part(kind: str, json: Any) -> Part:
    """A whole API object, so that errors can name it."""
    metadata = json.get("metadata") if isinstance(json, dict) else None
    metadata = metadata if isinstance(metadata, dict) else {}
    name = "/".join(str(metadata[key]) for key in ("namespace", "name") if metadata.get(key))
    return Part(f"{kind} {name or '(without a name)'}", "", json)


def filled(fields: JsonObject) -> JsonObject:
    """The fields that say something: what the API's own types call `omitempty`."""
    return {name: value for name, value in fields.items() if value}
