"""All that is measured, in the order in which it is measured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.bench.arena import Arena
from tests.bench.bars import counters, footprint, hardware, hung, prepare, recovery, responsiveness
from tests.bench.report import Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """`bars` are those that it has lines for."""

    bars: tuple[str, ...]
    what: str
    run: Callable[[Arena], Awaitable[list[Line]]]


MEASUREMENTS = (
    Measurement(bars=("B1a", "B1b", "B1e"), what="one at a time", run=prepare.one_at_a_time),
    Measurement(bars=("B1c", "B1d", "B1e"), what="many at once", run=prepare.many_at_once),
    Measurement(bars=("B1d",), what="durable syncs", run=counters.syncs),
    Measurement(bars=("B1f",), what="slow hardware", run=hardware.partitions),
    Measurement(bars=("B1g",), what="replays without an API server", run=recovery.without_api),
    Measurement(bars=("B2",), what="starts", run=footprint.start),
    Measurement(bars=("B3",), what="memory", run=footprint.memory),
    Measurement(bars=("B4",), what="idle", run=footprint.idle),
    Measurement(bars=("B7",), what="kill -9", run=recovery.killed),
    Measurement(bars=("R7",), what="a hung GPU", run=hung.hung_gpu),
    Measurement(bars=("B8",), what="API requests", run=counters.requests),
    Measurement(bars=("GetInfo",), what="GetInfo", run=responsiveness.introduction),
)
