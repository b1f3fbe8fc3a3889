"""Kubernetes quantities, exact.

A quantity is compared by value and printed in the canonical form of the family it was written in, as
`k8s.io/apimachinery/pkg/api/resource` does: `1024Mi` and `1Gi` are equal, and both print as `1Gi`. One thing is stricter here: a
quantity needs a digit (Go reads `Gi` as zero).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, Self

from dra_driver.model.errors import QuantityError

Family = Literal["decimal", "binary", "exponent"]

_NANO = 10**9
_LONGEST = 128
_BINARY_CEILING = (2**63 - 1) * _NANO
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX = {power: suffix for suffix, power in _BINARY.items()}
_SYNTAX = re.compile(
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[+-]?\d{1,3}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, order=True)
class Quantity:
    """An amount of a resource, in units of 10^-9; finer amounts are rounded away from zero."""

    nanos: int
    family: Family = field(default="decimal", compare=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `1Gi`, `1500m`, `1e3`, `.5`; raise QuantityError for anything else."""
        match = _SYNTAX.fullmatch(text) if len(text) <= _LONGEST else None
        if match is None:
            raise QuantityError(text)
        number, suffix = Fraction(match["number"]), match["suffix"] or ""
        if suffix in _BINARY:
            return cls._parsed_binary(number * 1024 ** _BINARY[suffix])
        if match["exponent"] is not None:
            scale = Fraction(10) ** int(match["exponent"])
            return cls(_away_from_zero(number * scale * _NANO), "exponent")
        scale = Fraction(10) ** _DECIMAL[suffix]
        return cls(_away_from_zero(number * scale * _NANO), "decimal")

    @classmethod
    def _parsed_binary(cls, value: Fraction) -> Self:
        nanos = _away_from_zero(value * _NANO)
        nanos = max(-_BINARY_CEILING, min(nanos, _BINARY_CEILING))
        return cls(nanos, "decimal" if 0 < abs(nanos) < _NANO else "binary")

    @classmethod
    def of(cls, value: int) -> Self:
        """A whole number, printed with decimal suffixes."""
        return cls(value * _NANO)

    @classmethod
    def of_bytes(cls, value: int) -> Self:
        """A number of bytes, printed with binary suffixes."""
        return cls(value * _NANO, "binary")

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos + other.nanos, self.family if self.nanos else other.family)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos - other.nanos, self.family if self.nanos else other.family)

    def __str__(self) -> str:
        if self.nanos == 0:
            return "0"
        whole = self.nanos % _NANO == 0
        if self.family == "binary" and whole and abs(self.nanos) >= 1024 * _NANO:
            return _canonical_binary(self.nanos // _NANO)
        return _canonical_decimal(self.nanos, exponent_form=self.family == "exponent")

    def __int__(self) -> int:
        """The whole value, rounded away from zero, as `Quantity.Value()` is."""
        return _away_from_zero(Fraction(self.nanos, _NANO))


def _away_from_zero(value: Fraction) -> int:
    return math.ceil(value) if value > 0 else math.floor(value)


def _canonical_binary(value: int) -> str:
    power = 0
    while value % 1024 == 0 and power < max(_BINARY_SUFFIX):
        value, power = value // 1024, power + 1
    return f"{value}{_BINARY_SUFFIX.get(power, '')}"


def _canonical_decimal(nanos: int, *, exponent_form: bool) -> str:
    value, exponent = nanos, -9
    while value % 1000 == 0:
        value, exponent = value // 1000, exponent + 3
    if exponent_form or exponent not in _DECIMAL_SUFFIX:
        return f"{value}e{exponent}" if exponent else f"{value}"
    return f"{value}{_DECIMAL_SUFFIX[exponent]}"
