"""Why nothing fits: worked out after the search has failed, by asking the same questions one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from dra_driver.model.claim import ClaimRef, Constraint
from dra_driver.rules.eligibility import Eligibility, Obstacle
from dra_driver.rules.matching import AllocationError
from dra_driver.rules.pools import Candidate, Pool
from dra_driver.rules.requests import Option, Slot

_CROWDED = "each request could be met alone, but not all together"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many devices one reason keeps away, and what it blames (taints, capacities, counter sets)."""

    reason: str
    devices: int
    subjects: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = ", ".join((*self.subjects[:3], "...") if len(self.subjects) > 3 else self.subjects)
        return f"{self.devices} {self.reason}" + (f" ({named})" if named else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """Too few devices for one option of a request, even if it were the only one.

    `matching` devices pass the selectors; `tallies`, by decreasing number, say what keeps the option from some of them.
    `needed` is None where all of them are asked for.
    """

    request: str
    device_class: str
    needed: int | None
    matching: int
    tallies: tuple[Tally, ...]

    def __str__(self) -> str:
        if not self.matching:
            return f"no device of class {self.device_class} matches its selectors"
        needed = "all" if self.needed is None else self.needed
        sentence = f"{needed} of class {self.device_class} needed, {self.matching} match"
        return f"{sentence}: {', '.join(map(str, self.tallies))}" if self.tallies else sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet:
    """A request none of whose options can be met; `shortages` has one entry for each option."""

    claim: str
    request: str
    shortages: tuple[Shortage, ...]

    def __str__(self) -> str:
        return f"claim {self.claim}, request {self.request}: " + ", or ".join(
            map(str, self.shortages)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """No solution on this node: requests that could not even be met alone, and what else there is to say."""

    node: str
    unmet: tuple[Unmet, ...] = ()
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One sentence for a pod's condition; it does not name the node."""
        return "; ".join((*map(str, self.unmet), *self.remarks))


def explain(
    node: str,
    slots: Sequence[Slot],
    pools: Sequence[Pool],
    eligibility: Eligibility,
    is_solvable: Callable[[Sequence[Slot]], bool],
) -> Refusal:
    """Why these slots have no solution. `is_solvable` tries a search; its AllocationError counts as no."""
    unmet = tuple(_unmet(slots, eligibility))
    together = () if unmet else tuple(_culprits(slots, is_solvable)) or (_CROWDED,)
    return Refusal(node=node, unmet=unmet, remarks=(*together, *_unusable(pools)))


def _unusable(pools: Sequence[Pool]) -> Iterator[str]:
    for pool in pools:
        if pool.incomplete:
            yield f"pool {pool.id} is incomplete: {pool.incomplete}"
        if pool.invalid:
            yield f"invalid resource pools were encountered: {pool.id}: {pool.invalid}"


def _unmet(slots: Sequence[Slot], eligibility: Eligibility) -> Iterator[Unmet]:
    for slot in slots:
        shortages = [_shortage(option, eligibility) for option in slot.options]
        if all(shortages):
            first = slot.options[0]
            yield Unmet(
                claim=str(first.claim),
                request=first.main,
                shortages=tuple(shortage for shortage in shortages if shortage),
            )


def _shortage(option: Option, eligibility: Eligibility) -> Shortage | None:
    matching = [c for c in eligibility.candidates() if _passes(option, c, eligibility)]
    met = [eligibility.obstacle(option, candidate) for candidate in matching]
    obstacles = [obstacle for obstacle in met if obstacle is not None]
    usable = len(matching) - len(obstacles)
    needed = None if option.request.mode == "All" else option.request.count
    if usable and usable >= (len(eligibility.everything(option)) if needed is None else needed):
        return None
    return Shortage(
        request=option.name,
        device_class=option.device_class.name,
        needed=needed,
        matching=len(matching),
        tallies=tuple(_tallies(obstacles)),
    )


def _tallies(obstacles: Sequence[Obstacle]) -> Iterator[Tally]:
    for reason, devices in Counter(obstacle.reason for obstacle in obstacles).most_common():
        subjects = dict.fromkeys(o.subject for o in obstacles if o.reason == reason and o.subject)
        yield Tally(reason=reason, devices=devices, subjects=tuple(subjects))


def _passes(option: Option, candidate: Candidate, eligibility: Eligibility) -> bool:
    try:
        return eligibility.matches(option, candidate)
    except AllocationError:
        return False  # a device that the search had no need to look at


def _culprits(
    slots: Sequence[Slot], is_solvable: Callable[[Sequence[Slot]], bool]
) -> Iterator[str]:
    """The constraints without which, one at a time, there would be a solution."""
    named = dict.fromkeys(
        (option.claim, _label(constraint))
        for slot in slots
        for option in slot.options
        for constraint in option.constraints
    )
    for claim, label in named:
        try:
            if is_solvable([_without(slot, claim, label) for slot in slots]):
                yield f"claim {claim}: {label} cannot be met"
        except AllocationError:
            continue


def _label(constraint: Constraint) -> str:
    kind = "matchAttribute" if constraint.match else "distinctAttribute"
    scope = f" of requests {', '.join(constraint.requests)}" if constraint.requests else ""
    return f"{kind} {constraint.match or constraint.distinct}{scope}"


def _without(slot: Slot, claim: ClaimRef, label: str) -> Slot:
    if slot.options[0].claim != claim:
        return slot
    options = (
        replace(option, constraints=tuple(c for c in option.constraints if _label(c) != label))
        for option in slot.options
    )
    return replace(slot, options=tuple(options))
