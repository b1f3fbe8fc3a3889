"""How fast slices are written where somebody else undoes it: soon at first, and never in a fight."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Collection, Iterable

from dra_driver.kube.backoff import Backoff
from dra_driver.ports import Clock

WRITES_PER_MINUTE = 6
_MINUTE_S = 60.0
_CALM_S = 60.0


class Pacing:
    """At most six writes a minute to one slice.

    Slices that somebody else deleted (the kubelet does, whenever it starts) may be written again after 0.25 s, and if that happens
    again and again after twice as long each time, up to 30 s, until there was peace for a minute.
    """

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._backoff = Backoff(rng=rng)
        self._present: set[str] = set()
        self._lost_at = 0.0
        self._not_before = 0.0
        self._writes: defaultdict[str, deque[float]] = defaultdict(
            lambda: deque(maxlen=WRITES_PER_MINUTE)
        )

    def notice(self, names: Collection[str]) -> None:
        """These slices are stored now."""
        lost, self._present = self._present - set(names), set(names)
        now = self._clock.monotonic()
        if lost and now >= self._not_before:
            if now - self._lost_at > _CALM_S:
                self._backoff.reset()
            self._lost_at = now
            self._not_before = now + self._backoff.pause_s()

    def wait_s(self, names: Iterable[str]) -> float:
        """Seconds until all of these may be written; 0 or less for now."""
        full = [times[0] for name in names if len(times := self._writes[name]) == WRITES_PER_MINUTE]
        return (
            max([self._not_before, *(time + _MINUTE_S for time in full)]) - self._clock.monotonic()
        )

    def count(self, name: str) -> None:
        """A write of it begins."""
        self._writes[name].append(self._clock.monotonic())

    def wrote(self, name: str) -> None:
        """It is stored."""
        self._present.add(name)

    def deleted(self, name: str) -> None:
        """We deleted it ourselves."""
        self._present.discard(name)
