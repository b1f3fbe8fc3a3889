"""Metrics in Prometheus' text format (version 0.0.4), as far as we need it: closed labels, no globals, no dependency.

Every label of a counter or histogram declares the values that it may take. So all series exist from the start, at zero, as
rates need it; the number of series is known before the first request; and nobody can make one up from a claim's name.

Only the event loop touches them: nothing is locked.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What a metric is called and means. `labels` gives each label's values, or none where they are not known before."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def header(self) -> Iterator[str]:
        """The lines that come before its samples."""
        yield f"# HELP {self.name} {_escaped(self.meaning)}"
        yield f"# TYPE {self.name} {self.kind}"

    def combinations(self) -> Iterator[tuple[str, ...]]:
        """Every label set, in the order of declaration."""
        return itertools.product(*self.labels.values())

    def sample(
        self, values: Iterable[str], number: float, suffix: str = "", bound: str = ""
    ) -> str:
        """One line; `bound` is a bucket's upper bound."""
        pairs = [*zip(self.labels, values, strict=True), *((("le", bound),) if bound else ())]
        inside = ",".join(f'{name}="{_escaped(value, quoted=True)}"' for name, value in pairs)
        labels = f"{{{inside}}}" if inside else ""
        return f"{self.name}{suffix}{labels} {_number(number)}"


class Series(Protocol):
    """Something that can be scraped."""

    family: Family

    def samples(self) -> Iterator[str]:
        """Its lines, without the header."""


class Counter:
    """Counts up. The labels' values are given in the order of their declaration; KeyError for undeclared ones."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self._counts = dict.fromkeys(family.combinations(), 0.0)

    def add(self, *values: str, amount: float = 1.0) -> None:
        """Count."""
        self._counts[values] += amount

    def samples(self) -> Iterator[str]:
        """See Series."""
        return (self.family.sample(values, count) for values, count in self._counts.items())


class Histogram:
    """Counts how often a value came out at most as large as each bound. `bounds` ascend; the last bucket has none."""

    def __init__(self, family: Family, bounds: Sequence[float]) -> None:
        self.family = family
        self._bounds = tuple(bounds)
        self._buckets = {values: [0] * (len(bounds) + 1) for values in family.combinations()}
        self._sums = dict.fromkeys(self._buckets, 0.0)

    def observe(self, *values: str, value: float) -> None:
        """Take note of one value."""
        self._buckets[values][bisect_left(self._bounds, value)] += 1
        self._sums[values] += value

    def samples(self) -> Iterator[str]:
        """See Series."""
        bounds = [*map(_number, self._bounds), "+Inf"]
        for values, counts in self._buckets.items():
            totals = list(itertools.accumulate(counts))
            for bound, total in zip(bounds, totals, strict=True):
                yield self.family.sample(values, total, "_bucket", bound)
            yield self.family.sample(values, self._sums[values], "_sum")
            yield self.family.sample(values, totals[-1], "_count")


class Level:
    """What is so at the moment of a scrape: `read` is asked then, and may name label sets as they come."""

    def __init__(self, family: Family, read: Callable[[], Mapping[tuple[str, ...], float]]) -> None:
        self.family = family
        self._read = read

    def samples(self) -> Iterator[str]:
        """See Series."""
        return (self.family.sample(values, number) for values, number in self._read().items())


def render(series: Iterable[Series]) -> str:
    """The whole page."""
    lines = (line for one in series for line in (*one.family.header(), *one.samples()))
    return "\n".join(lines) + "\n"


def _escaped(text: str, *, quoted: bool = False) -> str:
    plain = text.replace("\\", r"\\").replace("\n", r"\n")
    return plain.replace('"', r"\"") if quoted else plain


def _number(value: float) -> str:
    """Whole numbers as such; all others in full, so that nothing is rounded."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
