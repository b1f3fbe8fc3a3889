"""Which devices a request could take if it were the only one: all that does not depend on the attempt's own choices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from dra_driver.rules.consumable import consumption
from dra_driver.rules.ledger import Allocated, Ledger, Pick
from dra_driver.rules.matching import AllocationError, Matcher
from dra_driver.rules.pools import Candidate, Pool
from dra_driver.rules.requests import Option
from dra_driver.rules.tolerations import untolerated


class Obstacle(NamedTuple):
    """Why a device will not do; `subject` names the taint, capacity or counter set to blame."""

    reason: str
    subject: str = ""


class Shortlist:
    """Devices in search order, each judged when it is wanted and not before: a selector may fail on any, as upstream."""

    def __init__(
        self, candidates: Sequence[Candidate], judge: Callable[[Candidate], Pick | None]
    ) -> None:
        self._candidates = candidates
        self._judge = judge
        self._picks: dict[int, Pick | None] = {}
        self._following = list(range(len(candidates) + 1))

    def first_from(self, position: int) -> int:
        """The first position, from this one on, that has not been judged unfit; behind the last one if there is none."""
        path = []
        while self._following[position] != position:
            path.append(position)
            position = self._following[position]
        for passed in path:
            self._following[passed] = position
        return position

    def has(self, position: int, number: int) -> bool:
        """Whether there may be as many fit ones from this position on."""
        for _ in range(number - 1):
            if position >= len(self._candidates):
                return False
            position = self.first_from(position + 1)
        return position < len(self._candidates)

    def candidate(self, position: int) -> Candidate:
        """The device at this position."""
        return self._candidates[position]

    def pick(self, position: int) -> Pick | None:
        """The device at this position for the option; None if it is unfit."""
        if position not in self._picks:
            self._picks[position] = self._judge(self._candidates[position])
            if self._picks[position] is None:
                self._following[position] = position + 1
        return self._picks[position]


class Eligibility:
    """Judges devices by what is published and what claims hold already."""

    def __init__(self, pools: Sequence[Pool], allocated: Allocated, matcher: Matcher) -> None:
        self._pools = pools
        self._committed = Ledger(pools, allocated)
        self._matcher = matcher

    def shortlist(self, option: Option) -> Shortlist:
        """The devices that the option could take. The matcher's AllocationError comes when its device is judged."""
        free = (c for c in self.candidates() if not self._committed.in_use(c, option))
        return Shortlist(tuple(free), lambda candidate: self._judge(option, candidate))

    def everything(self, option: Option) -> tuple[Pick, ...]:
        """What a request for all devices means: every match, allocatable or not; AllocationError if a pool is unsure."""
        for pool in self._pools:
            if pool.incomplete or pool.invalid:
                raise AllocationError(
                    f"request {option.name} asks for all devices, but pool {pool.id} cannot tell:"
                    f" {pool.incomplete or pool.invalid}; wait until its driver has published it"
                )
        matching = (c for c in self.candidates() if self.matches(option, c))
        picks = (self._pick(option, candidate) for candidate in matching)
        return tuple(pick for pick in picks if pick is not None)

    def candidates(self) -> Iterator[Candidate]:
        """The node's devices in search order."""
        return (candidate for pool in self._pools for candidate in pool.candidates)

    def matches(self, option: Option, candidate: Candidate) -> bool:
        """Whether the selectors of the class, then those of the request, let the device through, and it can be reached."""
        selected = all(
            self._matcher.matches(selectors, candidate.device, candidate.id.driver)
            for selectors in (option.device_class.selectors, option.request.selectors)
        )
        return selected and candidate.reachable

    def obstacle(self, option: Option, candidate: Candidate) -> Obstacle | None:
        """What keeps the option from a device that matches; None if nothing does."""
        if self._committed.in_use(candidate, option):
            return Obstacle("allocated")
        pick = self._pick(option, candidate)
        if pick is None:
            return Obstacle("without the requested capacity")
        taint = untolerated(candidate.device.taints, option.request.tolerations)
        if taint is not None:
            return Obstacle("tainted", taint.key)
        if capacity := self._committed.lacks_capacity(pick):
            return Obstacle("out of capacity", capacity)
        if counter_set := self._committed.lacks_counters(pick):
            return Obstacle("out of counters", counter_set)
        return None

    def _judge(self, option: Option, candidate: Candidate) -> Pick | None:
        if not self.matches(option, candidate) or self.obstacle(option, candidate):
            return None
        return self._pick(option, candidate)

    @staticmethod
    def _pick(option: Option, candidate: Candidate) -> Pick | None:
        """What the option would consume of the device's capacity; None if the device does not have that."""
        consumed = consumption(candidate.device, option.request.capacity)
        if consumed is None:
            return None
        return Pick(option=option, candidate=candidate, consumed=consumed)
