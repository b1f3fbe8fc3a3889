"""Lines of the benchmark's table: what was measured of whom, the bar, and whether it holds.

Times of a machine that others use too prove nothing, so a verdict is passed on ratios, taken round by round, and on counters;
absolute numbers are printed, and judged only where the bar is an amount.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from dra_driver.ports import JsonObject

OURS = "ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`values` by contender; `holds` is None where there is no bar to judge by."""

    bar: str
    what: str
    unit: str
    values: Mapping[str, float]
    rule: str = ""
    holds: bool | None = None

    @property
    def verdict(self) -> str:
        """In a word."""
        return {True: "pass", False: "FAIL", None: "-"}[self.holds]

    def to_json(self) -> JsonObject:
        """All of it."""
        return asdict(self) | {"verdict": self.verdict}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured: one number a round for each contender."""

    bar: str
    what: str
    unit: str
    rounds: Mapping[str, Sequence[float]]

    @property
    def medians(self) -> dict[str, float]:
        """By contender."""
        return {name: median(values) for name, values in self.rounds.items()}

    def printed(self) -> Line:
        """Only said."""
        return self._line("", None)

    def at_most(self, limit: float) -> Line:
        """Ours has to be no more than that."""
        return self._line(f"<= {limit:g}", self.medians[OURS] <= limit)

    def never_over(self, limit: float) -> Line:
        """Ours has to be no more than that in any round."""
        return self._line(f"never over {limit:g}", max(self.rounds[OURS]) <= limit)

    def at_most_times(self, limits: Mapping[str, float]) -> Line:
        """Ours has to be no more than so many times each of those; one who did not compete is left out."""
        return self._compared("<=", limits)

    def at_least_times(self, limits: Mapping[str, float]) -> Line:
        """Ours has to be at least so many times each of those."""
        return self._compared(">=", limits)

    def _compared(self, sign: str, limits: Mapping[str, float]) -> Line:
        said, outcomes = [], []
        for name, limit in limits.items():
            if name in self.rounds:
                found = ratio(self.rounds[OURS], self.rounds[name])
                said.append(f"{sign} {limit:g} x {name} (is {found:.2f})")
                outcomes.append(found <= limit if sign == "<=" else found >= limit)
        return self._line("; ".join(said), all(outcomes) if outcomes else None)

    def _line(self, rule: str, holds: bool | None) -> Line:
        return Line(
            bar=self.bar,
            what=self.what,
            unit=self.unit,
            values=self.medians,
            rule=rule,
            holds=holds,
        )


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return median(a / b for a, b in zip(one, other, strict=True))


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def table(lines: Sequence[Line]) -> str:
    """All lines, in columns."""
    names = list(dict.fromkeys(name for line in lines for name in line.values))
    rows = [["bar", "what", "unit", *names, "rule", "verdict"]]
    for line in lines:
        cells = [_number(line.values.get(name)) for name in names]
        rows.append([line.bar, line.what, line.unit, *cells, line.rule, line.verdict])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
