"""B2, B3, B4: what a driver costs before anybody has asked for a GPU, and the most memory that it takes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict

from tests.bench import procfs
from tests.bench.arena import Arena
from tests.bench.contender import Contender
from tests.bench.report import Line, Measured

_SETTLE_S = 5.0
_WATCH_S = 30.0


async def start(arena: Arena) -> list[Line]:
    """B2: from exec to the last slice."""
    taken_s: dict[str, list[float]] = defaultdict(list)
    async with arena.contenders() as contenders:
        for _ in range(arena.rounds):
            for contender in contenders:
                await contender.stop()
                await contender.api.wipe_slices()
                taken_s[contender.name].append(await contender.start())
    measured = Measured(bar="B2", what="exec to slices published", unit="s", rounds=taken_s)
    return [measured.at_most_times({"example": 0.8, "nvidia": 0.8})]


async def memory(arena: Arena) -> list[Line]:
    """B3: idle, and the most while 64 claims at once come and go beside 64 held ones."""
    async with arena.contenders() as contenders:
        await asyncio.sleep(_SETTLE_S)
        idle = {one.name: procfs.memory(one.pid) for one in contenders}
        for contender in contenders:
            await contender.hold(64)
            for _ in range(arena.rounds):
                await contender.burst(64, 64)
        peak = {one.name: procfs.memory(one.pid).peak_bytes for one in contenders}
        threads = {one.name: float(procfs.threads(one.pid)) for one in contenders}
    resident = {name: found.resident_bytes / procfs.MIB for name, found in idle.items()}
    proportional = {name: found.proportional_bytes / procfs.MIB for name, found in idle.items()}
    growth = {name: peak[name] / procfs.MIB - resident[name] for name in idle}
    return [
        _memory("RSS idle", resident).at_most_times({"example": 1.0, "nvidia": 0.75}),
        _memory("Pss idle", proportional).at_most_times({"example": 0.7}),
        _memory("RSS peak over idle", growth).at_most(10),
        Measured(
            bar="B3", what="threads", unit="", rounds={name: [n] for name, n in threads.items()}
        ).printed(),
    ]


async def idle(arena: Arena) -> list[Line]:
    """B4, with the idle part of B8: half a minute in which nobody asks for anything."""
    async with arena.contenders() as contenders:
        await asyncio.sleep(_SETTLE_S)
        before, began_s = [await _consumed(one) for one in contenders], time.monotonic()
        await asyncio.sleep(_WATCH_S)
        after, watched_s = [await _consumed(one) for one in contenders], time.monotonic() - began_s
    names = [one.name for one in contenders]
    cpu, wake_ups, requests = {}, {}, {}
    for name, (cpu_0, wakes_0, requests_0), (cpu_1, wakes_1, requests_1) in zip(
        names, before, after, strict=True
    ):
        cpu[name] = [(cpu_1 - cpu_0) / watched_s * 100]
        wake_ups[name] = [(wakes_1 - wakes_0) / watched_s]
        requests[name] = [float((requests_1 - requests_0).total())]
    peers = {"example": 1.0, "nvidia": 1.0}
    watched = f"in {_WATCH_S:.0f} s"
    return [
        Measured(bar="B4", what="CPU idle", unit="% of a core", rounds=cpu).at_most(0.1),
        Measured(
            bar="B4", what="CPU idle, beside peers", unit="% of a core", rounds=cpu
        ).at_most_times(peers),
        Measured(bar="B4", what="wake-ups idle", unit="a second", rounds=wake_ups).at_most(10),
        Measured(bar="B4", what="API requests idle", unit=watched, rounds=requests).at_most(1),
    ]


def _memory(what: str, values: dict[str, float]) -> Measured:
    rounds = {name: [value] for name, value in values.items()}
    return Measured(bar="B3", what=what, unit="MiB", rounds=rounds)


async def _consumed(contender: Contender) -> tuple[float, int, Counter[str]]:
    pid = contender.pid
    return procfs.cpu_s(pid), procfs.wake_ups(pid), await contender.api.requests()
