"""R7: one GPU's driver hangs in the kernel: prepares on the others take no longer than on a node where all is well."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain

from dra_driver.ports import JsonObject
from dra_driver.rules.withdrawal import UNHEALTHY_TAINT
from tests.bench.arena import Arena
from tests.bench.contender import Contender
from tests.bench.objects import Device
from tests.bench.recipes import WHOLE
from tests.bench.report import OURS, Line, Measured, percentile, ratio
from tests.vendors.faults import set_faults

_HOUR_S = 3600
_NOTICED_WITHIN_S = 35.0
_LOOK_AGAIN_S = 0.5
_TIMES = 6
"""Each GPU is prepared so often in a round."""


async def hung_gpu(arena: Arena) -> list[Line]:
    """Two nodes take turns, one of them with a GPU each of whose calls hangs: until that is noticed, and from then on."""
    async with arena.contender(arena.ours) as well, arena.contender(arena.ours) as ill:
        hung, *others = ill.devices(WHOLE)
        await _prepare_all(well, well.devices(WHOLE)[1:])
        await _prepare_all(ill, others)
        _hang(ill, hung)
        lines = await _turns(arena, well, ill, "hung, not noticed yet")
        await _until_tainted(ill)
        lines += await _turns(arena, well, ill, "hung and tainted")
    return lines


async def _turns(arena: Arena, well: Contender, ill: Contender, state: str) -> list[Line]:
    """All rounds together, as there are few calls in one."""
    well_s: list[float] = []
    ill_s: list[float] = []
    for _ in range(arena.rounds):
        well_s += await _prepare_all(well, well.devices(WHOLE)[1:])
        ill_s += await _prepare_all(ill, ill.devices(WHOLE)[1:])
    well_ms, ill_ms = (percentile(each_s, 99) * 1e3 for each_s in (well_s, ill_s))
    what = f"prepare p99, one GPU {state}"
    times = ratio([ill_ms], [well_ms])
    return [
        Measured(bar="R7", what=what, unit="ms", rounds={OURS: [ill_ms]}).printed(),
        Measured(bar="R7", what=f"{what} / all well", unit="x", rounds={OURS: [times]}).at_most(2),
    ]


async def _prepare_all(node: Contender, devices: Sequence[Device]) -> list[float]:
    """One claim at a time; how long each took."""
    bursts = [await node.cycle(await node.claims_on(devices), 1) for _ in range(_TIMES)]
    if errors := [error for burst in bursts for error in burst.errors]:
        raise RuntimeError(f"ours cannot prepare GPUs that are well: {errors[0]}")
    return list(chain.from_iterable(burst.each_s for burst in bursts))


def _hang(node: Contender, device: Device) -> None:
    folder = node.folder / "hardware/nvidia"
    addresses = {path.stem for path in folder.glob("*:*.json")}
    [address] = [one for one in addresses if one.replace(":", "-").replace(".", "-") in device.name]
    set_faults(folder, {address: {"hang_s": _HOUR_S}})


async def _until_tainted(node: Contender) -> None:
    async with asyncio.timeout(_NOTICED_WITHIN_S):
        taints: set[str] = set()
        while UNHEALTHY_TAINT not in taints:
            await asyncio.sleep(_LOOK_AGAIN_S)
            taints = _taints((await node.api.report())["slices"])


def _taints(slices: Sequence[JsonObject]) -> set[str]:
    devices = chain.from_iterable(item["spec"].get("devices", ()) for item in slices)
    return {taint["key"] for device in devices for taint in device.get("taints", ())}
