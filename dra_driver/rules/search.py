"""The scheduler's search: the first assignment of devices, in its order, that everybody can live with.

Claims in order, requests in order, options in order, devices in order; combinations of devices within a request; back to
the latest decision when nothing is left. Two short cuts never change the outcome: a request does not look where a twin
before it began later (`Slot.twin`), and gives up where fewer devices are left than it still needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from dra_driver.rules.constraints import allows
from dra_driver.rules.eligibility import Eligibility, Shortlist
from dra_driver.rules.ledger import Ledger, Pick
from dra_driver.rules.matching import AllocationError
from dra_driver.rules.requests import Option, Slot
from dra_driver.rules.tolerations import untolerated

RESULTS_LIMIT = 32
"""Results that the API accepts in one claim."""

STEP_LIMIT = 50_000
"""Picks after which a search is given up: a second or two. The scheduler stops its search on a node after ten."""

Decision: TypeAlias = Iterator["Decision | None"]
"""Makes one choice after the other, yields the decision that comes next (None: all is decided), and takes its choice
back when it is resumed. A stack of these instead of recursion: a thousand picks are legal."""


class SearchTooLong(AllocationError):
    """Given up; on other nodes the search may be shorter."""


class Search:
    """One attempt to serve all slots. Use it once."""

    def __init__(self, slots: Sequence[Slot], eligibility: Eligibility, ledger: Ledger) -> None:
        self._slots = slots
        self._eligibility = eligibility
        self._ledger = ledger
        self._picks: list[Pick] = []
        self._begun: dict[int, int] = {}
        self._steps = 0
        options = [option for slot in slots for option in slot.options]
        self._everything = {
            o: eligibility.everything(o) for o in options if o.request.mode == "All"
        }
        self._shortlists = {o: eligibility.shortlist(o) for o in options if o.request.mode != "All"}
        self._reserves = self._needed_behind()

    def solve(self) -> tuple[Pick, ...] | None:
        """One pick per device in the order of slots; None if there is no solution.

        Raises AllocationError where a selector fails or a constraint forbids one of all devices, and SearchTooLong.
        """
        trail = [self._choose_option(0)]
        while trail:
            for following in trail[-1]:
                if following is None:
                    return tuple(self._picks)
                trail.append(following)
                break
            else:
                trail.pop()
        return None

    def _choose_option(self, index: int) -> Decision:
        if index == len(self._slots):
            yield None
            return
        for option in self._slots[index].options:
            held = sum(pick.option.claim == option.claim for pick in self._picks)
            if held + self._size(option) + self._reserves[index] > RESULTS_LIMIT:
                continue
            if option.request.mode == "All":
                yield self._take_all(index, option)
            else:
                twin = self._slots[index].twin
                start = 0 if twin is None else self._begun[twin]
                yield self._choose_device(index, option, start, option.request.count)

    def _choose_device(self, index: int, option: Option, start: int, missing: int) -> Decision:
        if not missing:
            yield self._choose_option(index + 1)
            return
        shortlist = self._shortlists[option]
        position = shortlist.first_from(start)
        while shortlist.has(position, missing):
            pick = self._usable(option, shortlist, position)
            if pick is not None:
                if missing == option.request.count:
                    self._begun[index] = position
                self._take(pick)
                yield self._choose_device(index, option, position + 1, missing - 1)
                self._give_back()
            position = shortlist.first_from(position + 1)

    def _usable(self, option: Option, shortlist: Shortlist, position: int) -> Pick | None:
        """The pick at this position, as matters stand; upstream evaluates no selectors for devices in use."""
        if self._ledger.in_use(shortlist.candidate(position), option):
            return None
        pick = shortlist.pick(position)
        if pick is None or self._ledger.lacks_counters(pick) or self._ledger.lacks_capacity(pick):
            return None
        return pick if self._is_allowed(pick) else None

    def _take_all(self, index: int, option: Option) -> Decision:
        wanted = self._everything[option]
        taken = 0
        for pick in wanted:
            if self._ledger.in_use(pick.candidate, option) or self._ledger.lacks_counters(pick):
                break
            if untolerated(pick.candidate.device.taints, option.request.tolerations):
                break
            if not self._is_allowed(pick):  # upstream looks at capacities later
                raise AllocationError(
                    f"claim {option.claim}, request {option.name} asks for all devices, but a constraint forbids"
                    f" {pick.candidate.id}: select fewer devices or drop the constraint"
                )
            if self._ledger.lacks_capacity(pick):
                break
            self._take(pick)
            taken += 1
        if taken and taken == len(wanted):
            yield self._choose_option(index + 1)
        for _ in range(taken):
            self._give_back()

    def _is_allowed(self, pick: Pick) -> bool:
        for constraint in pick.option.constraints:
            chosen = (
                other.candidate
                for other in self._picks
                if other.option.claim == pick.option.claim
                and constraint in other.option.constraints
            )
            if not allows(constraint, chosen, pick.candidate):
                return False
        return True

    def _take(self, pick: Pick) -> None:
        self._steps += 1
        if self._steps > STEP_LIMIT:
            raise SearchTooLong(
                f"gave up after {STEP_LIMIT} tries to fit {len(self._slots)} requests together:"
                " ask for fewer devices in one pod, or select them more narrowly"
            )
        self._ledger.take(pick)
        self._picks.append(pick)

    def _give_back(self) -> None:
        self._ledger.give_back(self._picks.pop())

    def _size(self, option: Option) -> int:
        return (
            len(self._everything[option]) if option.request.mode == "All" else option.request.count
        )

    def _needed_behind(self) -> list[int]:
        """For each slot, how many results its claim needs at least for the slots behind it."""
        least = [min(self._size(option) for option in slot.options) for slot in self._slots]
        claims = [slot.options[0].claim for slot in self._slots]
        reserves: list[int] = []
        for index, claim in enumerate(claims):
            behind = range(index + 1, len(claims))
            reserves.append(sum(least[i] for i in behind if claims[i] == claim))
            if least[index] + reserves[index] > RESULTS_LIMIT:
                raise AllocationError(
                    f"claim {claim} asks for at least {least[index] + reserves[index]} devices;"
                    f" a claim holds at most {RESULTS_LIMIT}: split it"
                )
        return reserves
