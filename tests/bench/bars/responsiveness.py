"""GetInfo: the kubelet gives a driver one second to say who it is, however busy the node."""

from __future__ import annotations

import asyncio

from tests.bench.arena import Arena
from tests.bench.contender import Contender
from tests.bench.report import OURS, Line, Measured, percentile, ratio

_IDLE_CALLS = 200
_CALLS_AT_A_TIME = 10
_CLAIMS = 256


async def introduction(arena: Arena) -> list[Line]:
    """p99 of GetInfo, idle and while 64 prepares are under way; all rounds together, as there are few calls in one.

    The kubelet and the API server of those prepares take as much of a small machine as the driver does, and would be asked for
    its CPU at the same moment: they stand aside. An idle driver is also asked while the next one has the prepares.
    """
    quiet: dict[str, list[float]] = {}
    beside: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    async with arena.aside() as aside, aside.contenders(on_disk=True) as contenders:
        for contender in contenders:
            await contender.burst(64, 64)
        for _ in range(arena.rounds):
            for one, other in zip(contenders, (*contenders[1:], contenders[0]), strict=True):
                quiet.setdefault(one.name, []).extend(await _calls(arena, one))
                each_s, _ = await _calls_under_load(arena, one, other)
                beside.setdefault(one.name, []).extend(each_s)
                each_s, rate = await _calls_under_load(arena, one, one)
                busy.setdefault(one.name, []).extend(each_s)
                rates.setdefault(one.name, []).append(rate)
    quiet_ms, beside_ms, busy_ms = _p99s_ms(quiet), _p99s_ms(beside), _p99s_ms(busy)
    most_ms = {name: [max(found) * 1e3] for name, found in busy.items()}
    under = "64 prepares under way"
    return [
        _line("p99 idle", "ms", quiet_ms).printed(),
        _line("p99 idle, machine busy", "ms", beside_ms).printed(),
        _line(f"p99, {under}", "ms", busy_ms).printed(),
        _line(f"p99, {under} / idle", "x", _ratios(busy_ms, quiet_ms)).at_most(3),
        _line(f"p99, {under} / idle, machine busy", "x", _ratios(busy_ms, beside_ms)).printed(),
        _line(f"longest, {under}", "ms", most_ms).at_most(100),
        _line("prepared meanwhile", "claims/s", rates).printed(),
    ]


async def _calls(arena: Arena, contender: Contender, times: int = _IDLE_CALLS) -> list[float]:
    answer = await arena.onlooker.ask(do="introduce", registry=contender.registry, times=times)
    each_s: list[float] = answer["each_s"]
    return each_s


async def _calls_under_load(
    arena: Arena, asked: Contender, loaded: Contender
) -> tuple[list[float], float]:
    """How long each call took, and how many claims a second were prepared meanwhile: without any, there was no load."""
    claims = await loaded.new_claims(_CLAIMS)
    load = asyncio.create_task(loaded.call("prepare", claims, at_once=64))
    each_s: list[float] = []
    while not load.done():
        each_s += await _calls(arena, asked, _CALLS_AT_A_TIME)
    answer, _ = await load
    if answer["errors"]:
        raise RuntimeError(f"{loaded.name} cannot prepare: {answer['errors'][0]}")
    await loaded.call("unprepare", claims, at_once=64)
    return each_s, _CLAIMS / answer["wall_s"]


def _p99s_ms(found: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [percentile(each_s, 99) * 1e3] for name, each_s in found.items()}


def _ratios(these: dict[str, list[float]], those: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [ratio(these[name], those[name])] for name in these}


def _line(what: str, unit: str, rounds: dict[str, list[float]]) -> Measured:
    assert OURS in rounds
    return Measured(bar="GetInfo", what=what, unit=unit, rounds=rounds)
