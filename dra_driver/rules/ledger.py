"""Who has what: what claims hold already, and what the attempt under way has taken so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from dra_driver.model.claim import AllocationResult, Claim, ClaimRef
from dra_driver.model.quantity import Quantity
from dra_driver.rules.pools import Candidate, CounterId, DeviceId, Pool, PoolId
from dra_driver.rules.requests import Option


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocated:
    """What the cluster's claims hold.

    `dedicated` devices belong to one claim; of the devices in `shares`, the capacities consumed in all (none, where the
    device has no capacity). A device looked at with adminAccess is in neither.
    """

    dedicated: frozenset[DeviceId] = frozenset()
    shares: Mapping[DeviceId, Mapping[str, Quantity]] = field(default_factory=dict)

    @classmethod
    def of(cls, claims: Iterable[Claim]) -> Self:
        """What these claims' allocations say."""
        dedicated: set[DeviceId] = set()
        shares: dict[DeviceId, dict[str, Quantity]] = {}
        for result in _held(claims):
            device = DeviceId(result.driver, result.pool, result.device)
            if result.share_id is None:
                dedicated.add(device)
                continue
            sums = shares.setdefault(device, {})
            for name, amount in result.consumed_capacity.items():
                sums[name] = sums[name] + amount if name in sums else amount
        return cls(dedicated=frozenset(dedicated), shares=shares)


def _held(claims: Iterable[Claim]) -> Iterator[AllocationResult]:
    for claim in claims:
        for result in claim.allocation.results if claim.allocation else ():
            if not result.admin_access:
                yield result


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A device for a request, and what that would consume of the device's capacities if it is shared."""

    option: Option
    candidate: Candidate
    consumed: Mapping[str, Quantity]


class Ledger:
    """The state of one attempt: `take` and `give_back` are each other's inverse, in stack order.

    A device charges its pool's counters once, however many shares of it are out, and for administrative access too as
    long as the attempt lasts (kubernetes#140729). Allocated devices that are no longer published charge nothing
    (kubernetes#140806).
    """

    def __init__(self, pools: Iterable[Pool], allocated: Allocated) -> None:
        self._allocated = allocated
        self._users: dict[DeviceId, list[ClaimRef]] = defaultdict(list)
        self._sharers: dict[DeviceId, int] = dict.fromkeys(allocated.shares, 1)
        self._consumed: dict[tuple[DeviceId, str], int] = defaultdict(int)
        for device, sums in allocated.shares.items():
            for name, amount in sums.items():
                self._consumed[device, name] = amount.nanos
        self._left: dict[CounterId, int] = {}
        for pool in pools:
            self._left.update(pool.counters)
            for device, charges in pool.charges.items():
                if device in allocated.dedicated or device in allocated.shares:
                    self._charge(charges, 1)
        self._overdrawn: Mapping[PoolId, CounterId] = {
            counter.pool: counter for counter, left in self._left.items() if left < 0
        }

    def in_use(self, candidate: Candidate, option: Option) -> bool:
        """Whether the device is out of the question for the request, whatever it looks like.

        Administrative access sees only its own claim's devices.
        """
        users = self._users.get(candidate.id, ())
        if option.request.admin_access:
            return option.claim in users
        return bool(users) or candidate.id in self._allocated.dedicated

    def lacks_capacity(self, pick: Pick) -> str | None:
        """The capacity of which too little is left for the pick, if any."""
        for name, amount in pick.consumed.items():
            total = self._consumed[pick.candidate.id, name] + amount.nanos
            if total > pick.candidate.device.capacity[name].value.nanos:
                return name
        return None

    def lacks_counters(self, pick: Pick) -> str | None:
        """The counter set of which too little is left for the pick, if any; a device shared already is paid for.

        A counter that is overdrawn, because devices changed after they were allocated, blocks all consumers of the pool.
        """
        candidate = pick.candidate
        shared = candidate.device.allow_multiple_allocations and self._sharers.get(candidate.id)
        if shared or not candidate.charges:
            return None
        overdrawn = self._overdrawn.get(PoolId(candidate.id.driver, candidate.id.pool))
        if overdrawn:
            return overdrawn.set
        for counter, amount_nanos in pick.candidate.charges.items():
            if amount_nanos > self._left[counter]:
                return counter.set
        return None

    def take(self, pick: Pick) -> None:
        """Write the pick down; it must be neither in use nor short of anything."""
        self._move(pick, 1)
        if not pick.candidate.device.allow_multiple_allocations:
            self._users[pick.candidate.id].append(pick.option.claim)

    def give_back(self, pick: Pick) -> None:
        """Undo the latest `take`, which was of this pick."""
        self._move(pick, -1)
        if not pick.candidate.device.allow_multiple_allocations:
            self._users[pick.candidate.id].pop()

    def _move(self, pick: Pick, times: int) -> None:
        if not pick.candidate.device.allow_multiple_allocations:
            self._charge(pick.candidate.charges, times)
            return
        device = pick.candidate.id
        for name, amount in pick.consumed.items():
            self._consumed[device, name] += times * amount.nanos
        before = self._sharers.get(device, 0)
        self._sharers[device] = before + times
        if 0 in {before, before + times}:
            self._charge(pick.candidate.charges, times)

    def _charge(self, charges: Mapping[CounterId, int], times: int) -> None:
        for counter, amount_nanos in charges.items():
            self._left[counter] -= times * amount_nanos
