"""B1a, B1b, B1e: claims one after the other, with few and with many claims held; B1c, B1d: many at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from tests.bench.arena import Arena
from tests.bench.contender import Burst
from tests.bench.report import OURS, Line, Measured, percentile, ratio

_FEW, _MANY = 8, 56

Rounds = Mapping[str, Sequence[Burst]]


async def one_at_a_time(arena: Arena) -> list[Line]:
    """p50 and CPU with 8 and with 56 held."""
    bursts: dict[int, dict[str, list[Burst]]] = {n: defaultdict(list) for n in (_FEW, _MANY)}
    async with arena.contenders(on_disk=True) as contenders:
        for contender in contenders:
            await contender.burst(
                arena.serial_claims, 1
            )  # whatever a driver imports or opens with its first claims
        for _ in range(arena.rounds):
            for held, into in bursts.items():
                for contender in contenders:
                    await contender.hold(held)
                    into[contender.name].append(await contender.burst(arena.serial_claims, 1))
    few, many = bursts[_FEW], bursts[_MANY]
    what = "prepare p50, 1 at a time"
    return [
        *_without_errors("B1a", few),
        _p50("B1a", f"{what}, {_FEW} held", few).at_most_times(
            {"reference": 1.0, "example": 1.0, "nvidia": 0.4}
        ),
        _p50("B1b", f"{what}, {_MANY} held", many).at_most_times({"example": 0.6, "nvidia": 0.08}),
        _growth(few, many),
        _cpu(f"CPU per operation, {_FEW} held", few).at_most_times(
            {"example": 0.7, "nvidia": 0.25}
        ),
        _cpu(f"CPU per operation, {_MANY} held", many).at_most_times(
            {"example": 0.35, "nvidia": 0.05}
        ),
    ]


async def many_at_once(arena: Arena) -> list[Line]:
    """Claims per second, 8 at once with 8 held, and 64 at once with 64 and with 1,000 held."""
    lines: list[Line] = []
    async with arena.contenders(on_disk=True) as contenders:
        for bar, at_once, held in (("B1c", 8, 8), ("B1d", 64, 64), ("B1d", 64, 1000)):
            bursts: dict[str, list[Burst]] = defaultdict(list)
            for contender in contenders:
                await contender.hold(held)
            for _ in range(arena.rounds):
                for contender in contenders:
                    bursts[contender.name].append(await contender.burst(64, at_once))
            lines += _at_once(bar, f"{at_once} at once, {held} held", bursts)
    return lines


def _at_once(bar: str, what: str, bursts: Rounds) -> Iterator[Line]:
    times = {"B1c": {"reference": 2.0, "example": 2.0, "nvidia": 40.0}}.get(
        bar, {"reference": 3.0, "example": 3.0, "nvidia": 60.0}
    )
    yield from _without_errors(bar, bursts)
    rates = {name: [burst.rate for burst in rounds] for name, rounds in bursts.items()}
    yield Measured(bar=bar, what=f"prepared, {what}", unit="claims/s", rounds=rates).at_least_times(
        times
    )
    yield _p50(bar, f"prepare p50, {what}", bursts).printed()
    tails = {
        name: [percentile(b.each_s, 99) / median(b.each_s) for b in rounds]
        for name, rounds in bursts.items()
    }
    tail = Measured(bar=bar, what=f"p99 / p50, {what}", unit="x", rounds=tails)
    yield tail.at_most(3) if bar == "B1d" else tail.printed()
    yield _cpu(f"CPU per operation, {what}", bursts).printed()


def _without_errors(bar: str, bursts: Rounds) -> Iterator[Line]:
    errors = {name: [float(len(b.errors)) for b in rounds] for name, rounds in bursts.items()}
    yield Measured(bar=bar, what="failed calls", unit="", rounds=errors).never_over(0)


def _p50(bar: str, what: str, bursts: Rounds) -> Measured:
    rounds = {name: [median(b.each_s) * 1e3 for b in found] for name, found in bursts.items()}
    return Measured(bar=bar, what=what, unit="ms", rounds=rounds)


def _cpu(what: str, bursts: Rounds) -> Measured:
    rounds = {name: [b.cpu_per_operation_s * 1e3 for b in found] for name, found in bursts.items()}
    return Measured(bar="B1e", what=what, unit="ms", rounds=rounds)


def _growth(few: Rounds, many: Rounds) -> Line:
    """How a driver slows down with the claims that are held; of all of them, but only ours is judged."""
    p50s = [_p50("", "", bursts).rounds for bursts in (few, many)]
    values = {name: ratio(p50s[1][name], p50s[0][name]) for name in few}
    return Line(
        bar="B1b",
        what=f"p50 with {_MANY} held / with {_FEW}",
        unit="x",
        values=values,
        rule="<= 1.3",
        holds=values[OURS] <= 1.3,
    )
