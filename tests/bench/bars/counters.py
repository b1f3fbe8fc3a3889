"""B8 and the syncs of B1: what a claim costs in API requests and durable writes, exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.bench.arena import Arena
from tests.bench.contender import Contender
from tests.bench.recipes import PARTITION, WHOLE, instrumented
from tests.bench.report import OURS, Line, Measured

_CLAIMS = 8


async def requests(arena: Arena) -> list[Line]:
    """API requests for a claim, its replay and its release."""
    counts: dict[str, list[Counter[str]]] = {}
    async with arena.contenders() as contenders:
        for contender in contenders:
            claims = await contender.new_claims(_CLAIMS)
            counts[contender.name] = [
                (await contender.call(verb, claims))[1]
                for verb in ("prepare", "prepare", "unprepare")
            ]
    limits = (("new claim", 1), ("replay", 0), ("unprepare", 0))
    lines = []
    for step, (what, limit) in enumerate(limits):
        each = {name: [_of_claims(found[step]) / _CLAIMS] for name, found in counts.items()}
        measured = Measured(bar="B8", what=f"API requests, {what}", unit="a claim", rounds=each)
        lines.append(measured.never_over(limit))
    return lines


async def syncs(arena: Arena) -> list[Line]:
    """Durable syncs of a claim, alone and 64 at once, with and without a change of the hardware."""
    lines = []
    async with arena.contender(instrumented()) as plugin:
        for what, kind, limit in (("whole GPU", WHOLE, 2), ("MIG partition", PARTITION, 3)):
            counts = [await _syncs_of(plugin, 7, 1, kind) for _ in range(arena.rounds)]
            lines.append(_syncs(what, counts).never_over(limit))
        await plugin.hold(64)
        counts = [await _syncs_of(plugin, 64, 64, "") for _ in range(arena.rounds)]
        lines.append(_syncs("64 at once, 64 held", counts).never_over(2))
    return lines


def _of_claims(found: Counter[str]) -> int:
    """A driver may look after its slices meanwhile; that is no claim's cost."""
    return sum(number for what, number in found.items() if not what.endswith("resourceslices"))


async def _syncs_of(plugin: Contender, count: int, at_once: int, kind: str) -> float:
    counter = plugin.folder / "syncs"
    before = _length(counter)
    burst = await plugin.burst(count, at_once, kind)
    assert not burst.errors, burst.errors[0]
    return (_length(counter) - before) / count


def _length(counter: Path) -> int:
    return counter.stat().st_size


def _syncs(what: str, counts: Sequence[float]) -> Measured:
    return Measured(bar="B1d", what=f"durable syncs, {what}", unit="a claim", rounds={OURS: counts})
