"""B1f: partitions on hardware that takes its time: claims on different GPUs do not wait for each other."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tests.bench.arena import Arena
from tests.bench.contender import Contender
from tests.bench.objects import Device
from tests.bench.recipes import PARTITION
from tests.bench.report import OURS, Line, Measured, ratio

_DELAY_S = 0.05
_ROUNDS = 3
"""A round takes half a minute, of which next to nothing is ours to be busy in."""
_GPUS = 8
_A_GPU = 7
"""1g.10gb partitions of an H100."""


async def partitions(arena: Arena) -> list[Line]:
    """One on one GPU, one on each of eight, seven on one; every call of the simulated NVML about a GPU takes 50 ms."""
    async with arena.contender(arena.ours) as plugin:
        published = plugin.devices(PARTITION)
        one, eight, seven = published[:1], published[::_A_GPU], published[:_A_GPU]
        await _wall_ms(plugin, eight)  # turns the mode on, which stays on
        _slow_down(plugin)
        walls: dict[str, list[float]] = {"one": [], "eight": [], "seven": []}
        for _ in range(min(arena.rounds, _ROUNDS)):
            walls["one"].append(await _wall_ms(plugin, one))
            walls["eight"].append(await _wall_ms(plugin, eight))
            walls["seven"].append(await _wall_ms(plugin, seven))
    apart = ratio(walls["eight"], walls["one"])
    said = {"one": "1 on one GPU", "eight": "8 on 8 GPUs at once", "seven": "7 on one GPU at once"}
    lines = [
        Measured(
            bar="B1f", what=f"MIG 1g.10gb, {what}", unit="ms", rounds={OURS: walls[name]}
        ).printed()
        for name, what in said.items()
    ]
    what = "8 on 8 GPUs / 1 on one GPU"
    judged = Measured(bar="B1f", what=what, unit="x", rounds={OURS: [apart]}).at_most(1.3)
    return [*lines, judged]


def _slow_down(plugin: Contender) -> None:
    folder = plugin.folder / "hardware/nvidia"
    changed = (path.stem for path in folder.glob("*:*.json"))  # a file for each GPU
    slow = {address: {"delay_s": _DELAY_S} for address in changed}
    assert len(slow) == _GPUS
    (folder / "faults.json").write_text(json.dumps(slow))


async def _wall_ms(plugin: Contender, devices: Sequence[Device]) -> float:
    burst = await plugin.cycle(await plugin.claims_on(devices), at_once=len(devices))
    if burst.errors:
        raise RuntimeError(f"ours cannot make partitions: {burst.errors[0]}")
    return burst.wall_s * 1e3
