"""R7: one GPU's driver hangs in the kernel: it is tainted, and prepares on the others take hardly longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain

from dra_driver.model.names import is_device_of
from dra_driver.rules.withdrawal import UNHEALTHY_TAINT
from tests.bench.arena import Arena
from tests.bench.contender import Contender
from tests.bench.objects import Device
from tests.bench.recipes import WHOLE
from tests.bench.report import OURS, Line, Measured, percentile, ratio
from tests.vendors.faults import set_faults

_HOUR_S = 3600
_TAINTED_WITHIN_S = 35.0
_LOOK_AGAIN_S = 0.5
_TIMES = 6
"""Each GPU is prepared so often in a round."""


async def hung_gpu(arena: Arena) -> list[Line]:
    """Two nodes take turns, one of them with a GPU each of whose calls hangs: until it is tainted, and from then on."""
    async with arena.contender(arena.ours) as well, arena.contender(arena.ours) as ill:
        await _round(well, ill)
        _hang(ill, ill.devices(WHOLE)[0])
        hung_s = time.monotonic()
        before = [await _round(well, ill)]
        while len(before) < arena.rounds and not await _is_tainted(ill):
            before.append(await _round(well, ill))
        await _wait_for_taint(ill)
        noticed_s = time.monotonic() - hung_s
        after = [await _round(well, ill) for _ in range(arena.rounds)]
    tainted = Measured(bar="R7", what="hung to tainted", unit="s", rounds={OURS: [noticed_s]})
    return [
        tainted.at_most(_TAINTED_WITHIN_S),
        *_p99("one GPU hung, not tainted yet", before),
        *_p99("one GPU hung and tainted", after),
    ]


async def _round(well: Contender, ill: Contender) -> tuple[list[float], list[float]]:
    """All GPUs but the first, on either node."""
    return (
        await _prepare_all(well, well.devices(WHOLE)[1:]),
        await _prepare_all(ill, ill.devices(WHOLE)[1:]),
    )


def _p99(state: str, rounds: Sequence[tuple[list[float], list[float]]]) -> Iterator[Line]:
    """Of all rounds together, as there are few calls in one."""
    well_ms, ill_ms = (
        percentile(list(chain.from_iterable(node)), 99) * 1e3 for node in zip(*rounds, strict=True)
    )
    what = f"prepare p99, {state}"
    yield Measured(bar="R7", what=what, unit="ms", rounds={OURS: [ill_ms]}).printed()
    times = ratio([ill_ms], [well_ms])
    what = f"{what} / all well"
    yield Measured(bar="R7", what=what, unit="x", rounds={OURS: [times]}).at_most(2)


async def _prepare_all(node: Contender, devices: Sequence[Device]) -> list[float]:
    """One claim at a time; how long each took."""
    bursts = [await node.cycle(await node.claims_on(devices), 1) for _ in range(_TIMES)]
    if errors := [error for burst in bursts for error in burst.errors]:
        raise RuntimeError(f"ours cannot prepare GPUs that are well: {errors[0]}")
    return list(chain.from_iterable(burst.each_s for burst in bursts))


def _hang(node: Contender, device: Device) -> None:
    folder = node.folder / "hardware/nvidia"
    addresses = {path.stem for path in folder.glob("*:*.json")}
    [address] = [one for one in addresses if is_device_of(one, device.name)]
    set_faults(folder, {address: {"hang_s": _HOUR_S}})


async def _wait_for_taint(node: Contender) -> None:
    """Or give up: what was not seen to be tainted by then is too late, and the line says so."""
    with suppress(TimeoutError):
        async with asyncio.timeout(2 * _TAINTED_WITHIN_S):
            is_tainted = False
            while not is_tainted:
                is_tainted = await _is_tainted(node)
                await asyncio.sleep(_LOOK_AGAIN_S)


async def _is_tainted(node: Contender) -> bool:
    slices = (await node.api.report())["slices"]
    devices = chain.from_iterable(item["spec"].get("devices", ()) for item in slices)
    return UNHEALTHY_TAINT in {taint["key"] for one in devices for taint in one.get("taints", ())}
