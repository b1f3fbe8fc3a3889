"""From what looks find to what counts: hysteresis, escalation and clearing, per GPU. Pure; times are seconds of one monotonic clock.

A broken part gets no new claims at once. A degraded one is only marked, and gets none either once that has lasted. Nothing is over
before it was away for a while, and the longer the more often it came back: a symptom that flickers must not rewrite slices for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

from dra_driver.model.device import Gpu, Placement
from dra_driver.model.health import Ailment, Cause, Condition, Severity
from dra_driver.model.names import DRIVER_NAME
from dra_driver.model.slices import Device, Taint, TaintEffect
from dra_driver.rules.devices import MONITOR_TAINT
from dra_driver.rules.forms import all_forms, covered
from dra_driver.rules.pool_layout import DesiredPool

CLEAR_S = 30.0
"""How long an ailment must have been away the first time; twice as long after each return within FORGET_S."""
CLEAR_MAX_S = 960.0
FORGET_S = 3600.0
ESCALATE_S = 600.0
"""How long something may be degraded and still be given out."""

HEALTH_TAINTS = MappingProxyType({cause: f"{DRIVER_NAME}/{cause}" for cause in Cause})

_Key: TypeAlias = tuple[Cause, Placement | None, Severity, str]
_EFFECTS: Mapping[TaintEffect, int] = {"None": 0, "NoSchedule": 1, "NoExecute": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How one ailment went: it began at `since`, was last found at `seen_at`, and came back `returns` times."""

    ailment: Ailment
    since: float
    seen_at: float
    returns: int = 0
    is_present: bool = True

    def is_active(self, now: float) -> bool:
        """Whether it counts: it is there, or was not away long enough."""
        return self.is_present or now - self.seen_at < self.hold_s

    @property
    def hold_s(self) -> float:
        """How long it counts when it is away."""
        return float(min(CLEAR_S * 2.0 ** min(self.returns, 16), CLEAR_MAX_S))


History: TypeAlias = Mapping[_Key, Course]
"""Of one GPU; the empty one says that nothing was ever found."""


def follow(history: History, found: Iterable[Ailment], now: float) -> History:
    """The history after a look that found these ailments. Those that differ in their messages alone are one, the first.

    What differs in its detail has a course of its own: two that take turns would rewrite slices at every look.
    """
    present: dict[_Key, Ailment] = {}
    for one in found:
        present.setdefault((one.cause, one.instance, one.severity, one.detail), one)
    away = {
        key: replace(course, is_present=False)
        for key, course in history.items()
        if key not in present and now - course.seen_at < FORGET_S
    }
    return away | {
        key: _continued(history.get(key), ailment, now) for key, ailment in present.items()
    }


def _continued(course: Course | None, ailment: Ailment, now: float) -> Course:
    if course is None:
        return Course(ailment=ailment, since=now, seen_at=now)
    return Course(
        ailment=ailment,
        since=course.since if course.is_active(now) else now,
        seen_at=now,
        returns=course.returns + (not course.is_present),
    )


def conditions(history: History, now: float, *, on_broken: TaintEffect) -> tuple[Condition, ...]:
    """What counts now, the worst first. What is broken has the effect `on_broken`, whatever else at most NoSchedule."""
    found = [
        Condition(
            ailment=course.ailment,
            since=course.since,
            effect=_effect(course, now, on_broken=on_broken),
        )
        for course in history.values()
        if course.is_active(now)
    ]
    return tuple(sorted(found, key=_rank))


def _rank(one: Condition) -> tuple[object, ...]:
    """Total, so that the order says nothing of which are there at this look and which are not over yet."""
    place = one.ailment.instance
    return (
        -_EFFECTS[one.effect],
        one.since,
        -one.ailment.severity,
        one.ailment.cause,
        (place.start, place.size) if place else (),
        one.ailment.detail,
    )


def _effect(course: Course, now: float, *, on_broken: TaintEffect) -> TaintEffect:
    if course.ailment.severity is Severity.BROKEN:
        return on_broken
    return "NoSchedule" if now - course.since >= ESCALATE_S else "None"


def afflicted(gpu: Gpu, found: Sequence[Condition]) -> dict[str, tuple[Condition, ...]]:
    """Which of the GPU's devices have which conditions.

    One of the GPU concerns all its forms, one of an instance those that occupy a position of it, and thus share its counter.
    """
    if not found:
        return {}
    by_device = {
        form.name: tuple(
            one
            for one in found
            if one.ailment.instance is None or form.positions & covered(one.ailment.instance)
        )
        for form in all_forms(gpu)
    }
    return {name: those for name, those in by_device.items() if those}


def with_health_taints(pool: DesiredPool, found: Mapping[str, Sequence[Condition]]) -> DesiredPool:
    """The pool whose devices bear the taints of their conditions: one for each cause, with the worst effect of that cause. Monitors are not evicted."""
    if not found:
        return pool

    def marked(device: Device) -> Device:
        taints = tuple(_taints(found.get(device.name, ())))
        if MONITOR_TAINT in device.taints:
            taints = tuple(map(_without_eviction, taints))
        return replace(device, taints=(*device.taints, *taints))

    slices = tuple(
        replace(item, devices=tuple(marked(device) for device in item.devices))
        for item in pool.slices
    )
    return replace(pool, slices=slices)


def _without_eviction(taint: Taint) -> Taint:
    """Whoever watches a GPU is needed most when it breaks."""
    return replace(taint, effect="NoSchedule") if taint.effect == "NoExecute" else taint


def without_unusable(pool: DesiredPool, found: Mapping[str, Sequence[Condition]]) -> DesiredPool:
    """The pool without the devices that nobody should get: for an API server that keeps no taints."""
    unusable = {name for name, those in found.items() if not all(one.is_usable for one in those)}
    slices = tuple(
        replace(item, devices=tuple(one for one in item.devices if one.name not in unusable))
        for item in pool.slices
    )
    return replace(pool, slices=slices)


def _taints(found: Sequence[Condition]) -> Iterator[Taint]:
    worst: dict[Cause, Condition] = {}
    for one in found:  # the worst come first
        worst.setdefault(one.ailment.cause, one)
    for cause, one in sorted(worst.items()):
        yield Taint(key=HEALTH_TAINTS[cause], value=one.ailment.detail, effect=one.effect)
