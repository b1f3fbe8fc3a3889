"""What Kubernetes adds to CEL for device selectors, over values that the CEL binding can carry.

The binding has no types of its own making: a quantity travels as bytes (its value in nano-units, in decimal, so that equal
amounts are equal values), a version as a list of one string (its canonical text, without build metadata, which equality
ignores). Functions raise QuantityError or ValueError; the binding turns that into a CEL error.
Follows k8s.io/apiserver/pkg/cel/library (quantity, semver) and cel-go's ext.Sets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

from dra_driver.model.errors import QuantityError
from dra_driver.model.names import is_semver
from dra_driver.model.quantity import Quantity

Kind: TypeAlias = Literal["bool", "int", "float", "string", "list", "quantity", "version"]
EncodedVersion: TypeAlias = list[str]

_NANO = 10**9
_INT64 = range(-(2**63), 2**63)
_LOOSE_VERSION = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?((?:[-+].*)?)")


class Function(NamedTuple):
    """One overload. The first parameter of a `member` is what stands before the dot."""

    name: str
    parameters: tuple[Kind, ...]
    result: Kind
    apply: Callable[..., Any]
    member: bool = True


def encode_quantity(quantity: Quantity) -> bytes:
    """The quantity as a CEL value."""
    return str(quantity.nanos).encode()


def encode_version(text: str) -> EncodedVersion:
    """The strict semantic version as a CEL value; ValueError for anything else."""
    if not is_semver(text):
        raise ValueError(f"version {text!r} is not a semantic version: write it like 1.2.3")
    return [text.partition("+")[0]]


def library() -> Iterator[Function]:
    """Every overload."""
    yield from _quantity_functions()
    yield from _version_functions()
    yield from _set_functions()


def _quantity_functions() -> Iterator[Function]:
    yield Function("quantity", ("string",), "quantity", _parse_quantity, member=False)
    yield Function("isQuantity", ("string",), "bool", _is_quantity, member=False)
    yield from _comparisons("quantity", int)
    yield Function("sign", ("quantity",), "int", lambda q: (int(q) > 0) - (int(q) < 0))
    yield Function("isInteger", ("quantity",), "bool", _is_integer)
    yield Function("asInteger", ("quantity",), "int", _as_integer)
    yield Function("asApproximateFloat", ("quantity",), "float", lambda q: int(q) / _NANO)
    for name, direction in (("add", 1), ("sub", -1)):
        yield Function(name, ("quantity", "quantity"), "quantity", partial(_sum, direction))
        yield Function(name, ("quantity", "int"), "quantity", partial(_sum_whole, direction))


def _version_functions() -> Iterator[Function]:
    yield Function("semver", ("string",), "version", encode_version, member=False)
    yield Function("semver", ("string", "bool"), "version", _read_version, member=False)
    yield Function("isSemver", ("string",), "bool", is_semver, member=False)
    yield Function("isSemver", ("string", "bool"), "bool", _is_version, member=False)
    yield from _comparisons("version", _precedence)
    for place, name in enumerate(("major", "minor", "patch")):
        yield Function(name, ("version",), "int", partial(_component, place))


def _set_functions() -> Iterator[Function]:
    yield Function("sets.contains", ("list", "list"), "bool", _contains, member=False)
    yield Function(
        "sets.equivalent",
        ("list", "list"),
        "bool",
        lambda one, other: _contains(one, other) and _contains(other, one),
        member=False,
    )
    yield Function(
        "sets.intersects",
        ("list", "list"),
        "bool",
        lambda one, other: any(item in one for item in other),
        member=False,
    )


def _comparisons(kind: Kind, key: Callable[[Any], Any]) -> Iterator[Function]:
    def compare(one: Any, other: Any) -> int:
        return int(key(one) > key(other)) - int(key(one) < key(other))

    yield Function("compareTo", (kind, kind), "int", compare)
    yield Function("isGreaterThan", (kind, kind), "bool", lambda a, b: compare(a, b) > 0)
    yield Function("isLessThan", (kind, kind), "bool", lambda a, b: compare(a, b) < 0)


def _contains(one: list[Any], other: list[Any]) -> bool:
    return all(item in one for item in other)


def _parse_quantity(text: str) -> bytes:
    return encode_quantity(Quantity.parse(text))


def _is_quantity(text: str) -> bool:
    try:
        Quantity.parse(text)
    except QuantityError:
        return False
    return True


def _is_integer(quantity: bytes) -> bool:
    whole, rest = divmod(int(quantity), _NANO)
    return not rest and whole in _INT64


def _as_integer(quantity: bytes) -> int:
    if not _is_integer(quantity):
        raise ValueError("cannot convert value to integer: test it with isInteger() first")
    return int(quantity) // _NANO


def _sum(direction: int, one: bytes, other: bytes) -> bytes:
    return str(int(one) + direction * int(other)).encode()


def _sum_whole(direction: int, one: bytes, whole: int) -> bytes:
    return str(int(one) + direction * whole * _NANO).encode()


def _read_version(text: str, normalize: bool) -> EncodedVersion:  # noqa: FBT001 - CEL has positional arguments only
    """With `normalize`, also `v1`, `1.2` and `01.2.3`."""
    loose = _LOOSE_VERSION.fullmatch(text) if normalize else None
    if loose is None:
        return encode_version(text)
    numbers = ".".join(str(int(number or 0)) for number in loose.groups()[:3])
    return encode_version(numbers + loose[4])


def _is_version(text: str, normalize: bool) -> bool:  # noqa: FBT001 - CEL has positional arguments only
    try:
        _read_version(text, normalize)
    except ValueError:
        return False
    return True


def _component(place: int, version: EncodedVersion) -> int:
    return int(version[0].partition("-")[0].split(".")[place])


def _precedence(version: EncodedVersion) -> tuple[Any, ...]:
    """Orders as semver 2.0.0 says: a pre-release comes before its release, numbers before words."""
    core, _, prerelease = version[0].partition("-")
    identifiers = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in prerelease.split(".")
    )
    return (*map(int, core.split(".")), not prerelease, identifiers if prerelease else ())
