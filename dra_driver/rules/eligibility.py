"""Which devices a request could take if it were the only one: all that does not depend on the attempt's own choices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """Picks in search order, found on demand: devices behind the chosen one are never evaluated, as upstream."""

    def __init__(self, source: Iterator[Pick]) -> None:
        self._source = source
        self._found: list[Pick] = []

    def at(self, position: int) -> Pick | None:
        """The pick at this position; None behind the last one."""
        while len(self._found) <= position:
            following = next(self._source, None)
            if following is None:
                return None
            self._found.append(following)
        return self._found[position]


class Eligibility:
    """Judges devices by what is published and what claims hold already."""

    def __init__(self, pools: Sequence[Pool], allocated: Allocated, matcher: Matcher) -> None:
        self._pools = pools
        self._committed = Ledger(pools, allocated)
        self._matcher = matcher

    def shortlist(self, option: Option) -> Shortlist:
        """The devices that the option could take. The matcher's AllocationError comes when its device is reached."""
        return Shortlist(self._eligible(option))

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
        return tuple(p for p in picks if p is not None and not self._committed.lacks_capacity(p))

    def candidates(self) -> Iterator[Candidate]:
        """The node's devices in search order."""
        return (candidate for pool in self._pools for candidate in pool.candidates)

    def matches(self, option: Option, candidate: Candidate) -> bool:
        """Whether the selectors of the class, then those of the request, let the device through."""
        return all(
            self._matcher.matches(selectors, candidate.device, candidate.id.driver)
            for selectors in (option.device_class.selectors, option.request.selectors)
        )

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

    def _eligible(self, option: Option) -> Iterator[Pick]:
        for candidate in self.candidates():
            if self._committed.in_use(candidate, option) or not self.matches(option, candidate):
                continue  # in this order: upstream evaluates no selectors for devices in use
            pick = self._pick(option, candidate)
            if pick is not None and self.obstacle(option, candidate) is None:
                yield pick

    @staticmethod
    def _pick(option: Option, candidate: Candidate) -> Pick | None:
        """What the option takes of the device, nothing of its capacity where it takes all of it; None if it cannot."""
        driver, device = candidate.id.driver, candidate.device
        consumed = consumption(device, driver, option.request.capacity)
        if consumed is None:
            return None
        shared = device.allow_multiple_allocations
        return Pick(option=option, candidate=candidate, consumed=consumed if shared else {})
