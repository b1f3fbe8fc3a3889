"""How a GPU of the fake library is and what it does: the figures that it answers with, each of them data."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

from dra_driver.config.load import SimulatedLoad
from dra_driver.vendors.nvidia.nvml_activity import GpmMetric
from dra_driver.vendors.nvidia.nvml_health import Field, XidEvent
from dra_driver.vendors.nvidia.profiles import Board
from tests.vendors.nvidia.fake import layout

_NO_INSTANCE = 0xFFFFFFFF
_UNSIGNED_INT, _UNSIGNED_LONG_LONG = 1, 3
_WIDE_FIELDS = {Field.ECC_UNCORRECTED_VOLATILE, Field.ECC_UNCORRECTED_AGGREGATE}
"""The others are 32 bits wide."""
WELL: Mapping[Field, int | None] = {**dict.fromkeys(Field, 0), Field.RETIRED_PENDING: None}
"""The fields of a GPU that has nothing to tell. Since Ampere, as all boards here are, pages are not retired any more."""

_IS_IDLE, _APPLICATION_CLOCKS, _TOO_HOT = 0x1, 0x2, 0x40
_COMPUTES, _DRAWS, _COMPUTES_BY_MPS = 1, 2, 4
METRICS: Mapping[GpmMetric, float] = {
    GpmMetric.GRAPHICS_UTIL: 1.0,
    GpmMetric.SM_UTIL: 1.0,
    GpmMetric.SM_OCCUPANCY: 0.5,
    GpmMetric.ANY_TENSOR_UTIL: 0.4,
    GpmMetric.DRAM_BW_UTIL: 0.6,
}
"""As in the simulation: what each figure is for a device whose SMs are all active."""


def well(board: Board) -> layout.Health:
    """A GPU that has nothing to tell."""
    health = layout.Health(links=board.nvlinks, clock_reasons=_IS_IDLE)
    set_fields(health, {})
    return health


def set_fields(health: layout.Health, values: Mapping[Field, int | None]) -> None:
    """These fields are not as those of a well GPU; what is None is not offered."""
    places = zip(health.fields, {**WELL, **values}.items(), strict=False)
    for place, (field, value) in places:
        kind = _UNSIGNED_LONG_LONG if field in _WIDE_FIELDS else _UNSIGNED_INT
        place.id, place.type, place.value = field, 0 if value is None else kind, value or 0


def set_heat(health: layout.Health, *, is_hot: bool) -> None:
    """Heat slows the GPU down, or no more; it has other reasons for its clocks too, which mean nothing."""
    health.clock_reasons = _APPLICATION_CLOCKS | _TOO_HOT if is_hot else _IS_IDLE


def report(health: layout.Health, event: XidEvent) -> None:
    """The driver reports that XID."""
    instance = _NO_INSTANCE if event.instance is None else event.instance
    health.xids[health.reported % layout.XIDS] = layout.Xid(event.xid, instance)
    health.reported += 1


def idle() -> layout.Load:
    """What a device without work does."""
    return load_of(SimulatedLoad())


def load_of(work: SimulatedLoad) -> layout.Load:
    """The figures of a device that does that, for ever as in its first step; by turns its processes compute and draw, draw, compute by MPS."""
    sm, count = work.sm[0], len(work.processes)
    load = layout.Load(
        gpu_percent=100 if sm else 0,
        memory_percent=round(sm * 60),
        milliwatts=70_000 + round(sm * 630_000),
        celsius=30 + round(sm * 45),
        memory_mib=work.memory_mib,
        process_count=count,
    )
    for number, share in enumerate(METRICS.values()):
        load.metrics[number] = round(sm * share * 100_000)
    kinds = cycle((_COMPUTES | _DRAWS, _DRAWS, _COMPUTES_BY_MPS))
    for number, (one, does) in enumerate(zip(work.processes, kinds, strict=False)):
        process = layout.Process(one.pid, does, one.memory_mib, round(sm * 100 / count))
        load.processes[number] = process
    return load
