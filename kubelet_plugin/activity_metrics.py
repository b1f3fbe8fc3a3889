"""What devices do, as metrics: gauges by GPU and partition, and the `*_info` by which they are joined to claims and pods.

A figure that is not to be had has no series, and neither has a device that is gone or cannot be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias, get_args

from dra_driver.model.activity import Activity, Throttle
from dra_driver.observe.series import Family, Level, Series
from kubelet_plugin.device_readings import DeviceReading

_Labels: TypeAlias = tuple[str, ...]
_DEVICE: dict[str, Sequence[str]] = {"gpu": (), "partition": ()}


def _gauge(name: str, meaning: str, labels: Iterable[str] = ()) -> Family:
    known: dict[str, Sequence[str]] = dict.fromkeys(labels, ())
    return Family(name=f"dra_device_{name}", kind="gauge", meaning=meaning, labels=_DEVICE | known)


_FIGURES: Sequence[tuple[Family, Callable[[Activity], float | None]]] = (
    (
        _gauge(
            "activity_timestamp_seconds", "When the device was measured, in seconds since 1970."
        ),
        lambda one: one.taken_at,
    ),
    (
        _gauge("utilization_ratio", "Time in which any kernel ran; of whole GPUs only."),
        lambda one: one.utilization,
    ),
    (
        _gauge(
            "memory_utilization_ratio", "Time in which memory was accessed; of whole GPUs only."
        ),
        lambda one: one.memory_utilization,
    ),
    (
        _gauge("engine_activity_ratio", "Time in which the compute or graphics engine was in use."),
        lambda one: one.engine_activity,
    ),
    (
        _gauge("sm_activity_ratio", "Multiprocessors that had work, averaged."),
        lambda one: one.sm_activity,
    ),
    (
        _gauge("sm_occupancy_ratio", "Warps that were resident, of those that could be, averaged."),
        lambda one: one.sm_occupancy,
    ),
    (
        _gauge("tensor_activity_ratio", "Time in which tensor cores were in use, averaged."),
        lambda one: one.tensor_activity,
    ),
    (
        _gauge("dram_activity_ratio", "Memory bandwidth that was used, averaged."),
        lambda one: one.dram_activity,
    ),
    (
        _gauge("memory_used_bytes", "Memory in use, without what the driver keeps for itself."),
        lambda one: one.memory_used_bytes,
    ),
    (_gauge("memory_total_bytes", "Memory that there is."), lambda one: one.memory_total_bytes),
    (_gauge("power_watts", "Power that the GPU draws."), lambda one: one.power_watts),
    (
        _gauge("temperature_celsius", "Temperature of the GPU's chip."),
        lambda one: one.temperature_celsius,
    ),
    (
        _gauge("processes", "Processes that have the device open."),
        lambda one: None if one.processes is None else len(one.processes),
    ),
)

THROTTLED = Family(
    name="dra_device_throttled",
    kind="gauge",
    meaning="1 while the GPU's clocks are lowered for that reason.",
    labels={**_DEVICE, "reason": get_args(Throttle)},
)
INFO = _gauge("info", "Always 1; what the device is.", ("pool", "profile", "uuid"))
CLAIM_INFO = _gauge(
    "claim_info",
    "Always 1; the claims that hold the device, and the pods that use them.",
    ("namespace", "claim", "pod"),
)
CONTAINER_INFO = _gauge(
    "container_info",
    "Always 1; the containers that have the device open.",
    ("pod_uid", "container_id"),
)


def activity_series(readings: Callable[[], Iterable[DeviceReading]]) -> tuple[Series, ...]:
    """All of them; `readings` are asked at each scrape."""
    return (
        *(_figure(family, value, readings) for family, value in _FIGURES),
        Level(THROTTLED, lambda: dict(_throttled(readings()))),
        Level(
            INFO,
            lambda: {
                (*_labels(one), one.pool, one.profile, one.activity.uuid): 1 for one in readings()
            },
        ),
        Level(
            CLAIM_INFO,
            lambda: {(*_labels(one), *user): 1 for one in readings() for user in one.users},
        ),
        Level(
            CONTAINER_INFO,
            lambda: {
                (*_labels(one), box.pod_uid, box.id): 1
                for one in readings()
                for box in one.containers
            },
        ),
    )


def _figure(
    family: Family,
    value: Callable[[Activity], float | None],
    readings: Callable[[], Iterable[DeviceReading]],
) -> Level:
    def read() -> dict[_Labels, float]:
        found = {_labels(one): value(one.activity) for one in readings()}
        return {labels: number for labels, number in found.items() if number is not None}

    return Level(family, read)


def _throttled(readings: Iterable[DeviceReading]) -> Iterator[tuple[_Labels, float]]:
    for one in readings:
        if one.activity.throttled is not None:
            for reason in get_args(Throttle):
                yield (*_labels(one), reason), float(reason in one.activity.throttled)


def _labels(reading: DeviceReading) -> tuple[str, str]:
    return reading.gpu, reading.partition
