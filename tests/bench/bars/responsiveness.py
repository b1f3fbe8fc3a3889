"""GetInfo: the kubelet gives a driver one second to say who it is, however busy the node."""

from __future__ import annotations

import asyncio

from tests.bench.arena import Arena
from tests.bench.contender import Contender
from tests.bench.report import OURS, Line, Measured, percentile

_IDLE_CALLS = 200
_CALLS_AT_A_TIME = 10
_CLAIMS = 256


async def introduction(arena: Arena) -> list[Line]:
    """p99 of GetInfo, idle and while 64 prepares are under way; all rounds together, as there are few calls in one."""
    quiet: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}
    async with arena.contenders() as contenders:
        for contender in contenders:
            await contender.burst(64, 64)
        for _ in range(arena.rounds):
            for contender in contenders:
                quiet.setdefault(contender.name, []).extend(await _calls(arena, contender))
                busy.setdefault(contender.name, []).extend(
                    await _calls_under_load(arena, contender)
                )
    idle_ms = {name: [percentile(found, 99) * 1e3] for name, found in quiet.items()}
    busy_ms = {name: [percentile(found, 99) * 1e3] for name, found in busy.items()}
    most_ms = {name: [max(found) * 1e3] for name, found in busy.items()}
    times = {name: [busy_ms[name][0] / idle_ms[name][0]] for name in idle_ms}
    under = "64 prepares under way"
    return [
        _line("p99 idle", "ms", idle_ms).printed(),
        _line(f"p99, {under}", "ms", busy_ms).printed(),
        _line(f"p99, {under} / idle", "x", times).at_most(3),
        _line(f"longest, {under}", "ms", most_ms).at_most(100),
    ]


async def _calls(arena: Arena, contender: Contender, times: int = _IDLE_CALLS) -> list[float]:
    answer = await arena.onlooker.ask(do="introduce", registry=contender.registry, times=times)
    each_s: list[float] = answer["each_s"]
    return each_s


async def _calls_under_load(arena: Arena, contender: Contender) -> list[float]:
    claims = await contender.new_claims(_CLAIMS)
    load = asyncio.create_task(contender.call("prepare", claims, at_once=64))
    each_s: list[float] = []
    while not load.done():
        each_s += await _calls(arena, contender, _CALLS_AT_A_TIME)
    await contender.call("unprepare", claims, at_once=64)
    return each_s


def _line(what: str, unit: str, rounds: dict[str, list[float]]) -> Measured:
    assert OURS in rounds
    return Measured(bar="GetInfo", what=what, unit=unit, rounds=rounds)
