"""B7 and B1g: a driver that was killed under load, and one whose API server is gone."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter, defaultdict
from statistics import median

from tests.bench.arena import Arena
from tests.bench.contender import Contender
from tests.bench.objects import reference_of
from tests.bench.programs import Kubelet
from tests.bench.report import Line, Measured

_HELD = 64
_LOAD = 200
_INTO_THE_LOAD_S = 0.1
_SLICES_SETTLE_S = 1.0


async def killed(arena: Arena) -> list[Line]:
    """B7: kill -9 while claims are prepared, exec at once: the first replay, the first new claim, and slices written."""
    replayed: dict[str, list[float]] = defaultdict(list)
    fresh: dict[str, list[float]] = defaultdict(list)
    writes: dict[str, list[float]] = defaultdict(list)
    async with arena.contenders() as contenders:
        for contender in contenders:
            await contender.hold(_HELD)
        for _ in range(arena.rounds):
            for contender in contenders:
                replay_s, fresh_s, written = await _kill(contender, arena)
                replayed[contender.name].append(replay_s)
                fresh[contender.name].append(fresh_s)
                writes[contender.name].append(written)
    what = "kill -9 to first"
    return [
        Measured(bar="B7", what=f"{what} replay", unit="s", rounds=replayed).at_most(1),
        Measured(bar="B7", what=f"{what} new claim", unit="s", rounds=fresh).at_most(2),
        Measured(bar="B7", what="slices written after", unit="", rounds=writes).never_over(0),
    ]


async def without_api(arena: Arena) -> list[Line]:
    """B1g: 64 replays, one after the other, while the API server drops every request."""
    p50_ms: dict[str, list[float]] = defaultdict(list)
    failed: dict[str, list[float]] = defaultdict(list)
    asked: dict[str, list[float]] = defaultdict(list)
    async with arena.contenders() as contenders:
        for contender in contenders:
            await contender.hold(_HELD)
            await contender.api.set_outage(is_down=True)
        for _ in range(arena.rounds):
            for contender in contenders:
                answer, requests = await contender.call("prepare", contender.held)
                p50_ms[contender.name].append(median(answer["each_s"]) * 1e3)
                failed[contender.name].append(len(answer["errors"]))
                asked[contender.name].append(requests["get resourceclaims"])
    what = "replay of 64, API server down"
    return [
        Measured(bar="B1g", what=f"p50, {what}", unit="ms", rounds=p50_ms).printed(),
        Measured(bar="B1g", what=f"failed, {what}", unit="", rounds=failed).never_over(0),
        Measured(bar="B1g", what=f"claims asked for, {what}", unit="", rounds=asked).never_over(0),
    ]


async def _kill(contender: Contender, arena: Arena) -> tuple[float, float, float]:
    """Seconds to the first replay and to the first new claim, and the slices written since."""
    load, (new,) = await contender.new_claims(_LOAD), await contender.new_claims(1)
    before = await contender.api.requests()
    loading = asyncio.create_task(contender.call("prepare", load, at_once=8))
    await asyncio.sleep(_INTO_THE_LOAD_S)
    killed_s = time.monotonic()
    await contender.stop(signal.SIGKILL)
    await contender.launch()
    recovery = await arena.onlooker.ask(
        do="recover",
        registry=contender.registry,
        replayed=reference_of(contender.held[0]),
        fresh=reference_of(new),
    )
    await loading
    await asyncio.sleep(_SLICES_SETTLE_S)
    written = _slice_writes(await contender.api.requests() - before)
    await _tidy(contender, arena.kubelet, [*load, new])
    return recovery["replayed_at_s"] - killed_s, recovery["fresh_at_s"] - killed_s, written


async def _tidy(contender: Contender, kubelet: Kubelet, claims: list[dict[str, object]]) -> None:
    """Release what the round has prepared, in whatever state the kill has left it, and see that nothing else was lost."""
    await kubelet.ask(do="forget", registry=contender.registry)
    for verb, these in (("unprepare", claims), ("prepare", contender.held)):
        answer, _ = await contender.call(verb, these, at_once=8)
        if answer["errors"]:
            raise RuntimeError(f"{contender.name} cannot {verb}: {answer['errors'][0]}")


def _slice_writes(requests: Counter[str]) -> int:
    verbs = ("create", "replace", "patch", "delete", "deletecollection")
    return sum(requests[f"{verb} resourceslices"] for verb in verbs)
