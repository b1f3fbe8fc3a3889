"""Which partitions can stand beside each other on one GPU: exact answers, as a GPU has at most a few thousand states.

A partition takes the positions of its placement and its profile's `consumes` out of the GPU's counters; nothing else
limits it. That is the hardware's own rule: the enumerations in the tests give the vendors' published numbers. Parts of one
partition (`PartitionProfile.whole`) take together what that partition takes; they are placed, and never proposed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from dra_driver.model.device import Partitioning, PartitionProfile, Placement


@dataclass(frozen=True, slots=True, order=True)
class Placed:
    """A partition of that profile at that place."""

    profile_name: str
    placement: Placement


Layout: TypeAlias = frozenset[Placed]


def legal(partitioning: Partitioning, placed: Collection[Placed]) -> bool:
    """Whether these partitions can exist together."""
    return _room_beside(partitioning, placed) is not None


def fits(partitioning: Partitioning, placed: Collection[Placed]) -> tuple[Placed, ...]:
    """Every partition that can be added to these as they stand; none if they are not legal themselves.

    Profiles come in the GPU's order, each with descending starts: high starts first keeps position 0, where the
    largest profiles must begin, free for longest.
    """
    room = _room_beside(partitioning, placed)
    if room is None:
        return ()
    return tuple(one for one, profile in _choices(partitioning) if room.without(one, profile))


def best_placement(
    partitioning: Partitioning, placed: Collection[Placed], profile_name: str
) -> Placement | None:
    """The place for one more of the profile after which the most partitions still fit, the highest start among equals.

    None if it fits nowhere. On an empty GPU that is the highest start, which is also the order in which devices are
    published for a scheduler that takes the first; counting whole layouts instead would favour the small profiles.
    """
    choices = [one for one in fits(partitioning, placed) if one.profile_name == profile_name]
    best = max(
        choices,
        key=lambda one: (len(fits(partitioning, (*placed, one))), one.placement.start),
        default=None,
    )
    return best.placement if best else None


def fits_after_repacking(partitioning: Partitioning, profile_names: Iterable[str]) -> Layout | None:
    """A layout with these profiles (one partition for each time a name occurs), wherever they stand now; or None."""
    wanted = Counter(profile_names)
    return _pack(_Room.of(partitioning), _choices(partitioning), wanted)


def layouts(partitioning: Partitioning) -> Iterator[Layout]:
    """Every legal set of partitions, the empty one included, each once."""
    return _grow(_Room.of(partitioning), _choices(partitioning), frozenset())


def layouts_beside(
    partitioning: Partitioning, occupied: Iterable[Placement], taken: Mapping[str, int]
) -> Iterator[Layout]:
    """Every set of partitions that leaves these positions and these amounts alone; none where the amounts are not there."""
    room = _Room.of(partitioning)
    left = {name: total - taken.get(name, 0) for name, total in room.counters.items()}
    free = room.positions
    for placement in occupied:
        free &= ~_mask(placement)
    if all(amount >= 0 for amount in left.values()):
        yield from _grow(_Room(free, left), _choices(partitioning), frozenset())


def maximal_layouts(partitioning: Partitioning) -> Iterator[Layout]:
    """The layouts to which nothing can be added."""
    return (layout for layout in layouts(partitioning) if not fits(partitioning, layout))


_Choice: TypeAlias = tuple[Placed, PartitionProfile]


@dataclass(frozen=True, slots=True)
class _Room:
    """What is left of a GPU: `positions` is a bit mask of the free ones."""

    positions: int
    counters: Mapping[str, int]

    @classmethod
    def of(cls, partitioning: Partitioning) -> _Room:
        return cls((1 << partitioning.positions) - 1, partitioning.counters)

    def without(self, placed: Placed, profile: PartitionProfile) -> _Room | None:
        """What is left after that partition, or None if there is no room for it."""
        mask = _mask(placed.placement)
        consumes = profile.consumes
        if mask & ~self.positions or any(
            amount > self.counters.get(name, 0) for name, amount in consumes.items()
        ):
            return None
        left = {name: total - consumes.get(name, 0) for name, total in self.counters.items()}
        return _Room(self.positions & ~mask, left)


def _mask(placement: Placement) -> int:
    return ((1 << placement.size) - 1) << placement.start


def _room_beside(partitioning: Partitioning, placed: Collection[Placed]) -> _Room | None:
    room: _Room | None = _Room.of(partitioning)
    split: set[Placement] = set()
    for one in placed:
        profile = partitioning.profile(one.profile_name)
        if room is None or profile is None or one.placement not in profile.placements:
            return None
        if profile.whole is None or one.placement.undivided not in split:
            room = room.without(one, profile)
        if profile.whole is not None:
            split.add(one.placement.undivided)
    return room


def _choices(partitioning: Partitioning) -> tuple[_Choice, ...]:
    return tuple(
        (Placed(profile.name, placement), profile)
        for profile in partitioning.profiles
        for placement in sorted(profile.placements, reverse=True)
    )


def _grow(room: _Room, choices: tuple[_Choice, ...], layout: Layout) -> Iterator[Layout]:
    """The layout and all that extend it by later choices: looking only forward, each set is built in one order."""
    yield layout
    for number, (placed, profile) in enumerate(choices):
        left = room.without(placed, profile)
        if left:
            yield from _grow(left, choices[number + 1 :], layout | {placed})


def _pack(room: _Room, choices: tuple[_Choice, ...], wanted: Counter[str]) -> Layout | None:
    if not +wanted:
        return frozenset()
    for number, (placed, profile) in enumerate(choices):
        left = room.without(placed, profile) if wanted[placed.profile_name] else None
        if left is None:
            continue
        rest = _pack(left, choices[number + 1 :], wanted - Counter([placed.profile_name]))
        if rest is not None:
            return rest | {placed}
    return None
