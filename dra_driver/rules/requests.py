"""What the claims of one pod ask for, laid out as the decisions that the allocator has to take one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dra_driver.model.claim import (
    Claim,
    ClaimRef,
    ClaimRequest,
    Constraint,
    DeviceClass,
    DeviceRequest,
)
from dra_driver.rules.matching import AllocationError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Option:
    """One way to meet a request: its `exactly`, or one of its `firstAvailable`. Compared by identity.

    `name` is what results call the request (`main` or `main/sub`), `constraints` are those of the claim that concern it.
    """

    claim: ClaimRef
    main: str
    name: str
    request: DeviceRequest
    device_class: DeviceClass
    constraints: tuple[Constraint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One request of one claim, with its options in order of preference.

    `twin` is the nearest earlier slot that could swap its devices with this one without changing anything. The first
    solution in search order never gives the later twin an earlier device, so the search need not look there.
    """

    options: tuple[Option, ...]
    twin: int | None = None


def concerns(requests: Sequence[str], main: str, name: str) -> bool:
    """Whether a constraint's or a config's list of requests means this one: empty means all, `main` all its subs."""
    return not requests or main in requests or name in requests


def read_requests(claims: Sequence[Claim], classes: Mapping[str, DeviceClass]) -> tuple[Slot, ...]:
    """The slots of all claims in search order; AllocationError for a class or a constraint that nobody knows."""
    for claim in claims:
        _check_constraints(claim)
    slots = [
        Slot(options=tuple(_options(claim, request, classes)))
        for claim in claims
        for request in claim.requests
    ]
    if any(option.request.admin_access for slot in slots for option in slot.options):
        return tuple(slots)  # what admin access may take depends on the order of requests: no twins
    return tuple(replace(slot, twin=_twin(slots, index)) for index, slot in enumerate(slots))


def _check_constraints(claim: Claim) -> None:
    for constraint in claim.constraints:
        if constraint.match is None and constraint.distinct is None:
            raise AllocationError(
                f"claim {claim.ref}: a constraint has neither matchAttribute nor distinctAttribute;"
                " give it one of them"
            )


def _options(
    claim: Claim, asked: ClaimRequest, classes: Mapping[str, DeviceClass]
) -> Iterator[Option]:
    for request in asked.alternatives:
        device_class = classes.get(request.device_class)
        if device_class is None:
            raise AllocationError(
                f"claim {claim.ref}, request {asked.name}: device class {request.device_class} does not exist;"
                " create it or name another"
            )
        name = f"{asked.name}/{request.name}" if asked.prioritized else asked.name
        yield Option(
            claim=claim.ref,
            main=asked.name,
            name=name,
            request=request,
            device_class=device_class,
            constraints=tuple(
                constraint
                for constraint in claim.constraints
                if concerns(constraint.requests, asked.name, name)
            ),
        )


def _twin(slots: Sequence[Slot], index: int) -> int | None:
    earlier: Iterable[int] = range(index - 1, -1, -1)
    return next((i for i in earlier if _interchangeable(slots[i], slots[index])), None)


def _interchangeable(one: Slot, other: Slot) -> bool:
    if len(one.options) != 1 or len(other.options) != 1:
        return False
    first, second = one.options[0], other.options[0]
    constrained_alike = first.constraints == second.constraints and (
        not first.constraints or first.claim == second.claim
    )
    return constrained_alike and replace(first.request, name="") == replace(second.request, name="")
