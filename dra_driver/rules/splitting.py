"""Parts of a partition as devices that plain counters keep apart: when that is exact, and when it must not be offered.

The parts of one partition share its positions. So everything is counted in parts: a position is as many as a partition has parts,
a part takes one of each of its positions, anything else all. Then the parts of one partition fit beside each other and beside nothing
that overlaps them. Two kinds of parts would, so a GPU offers one kind. Engines, which have no place, are taken by parts, too: while
some parts of a partition are free, less of them is counted than the partition has. `is_exact` looks whether that ever lets
something through that the hardware refuses.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations

from dra_driver.model.device import Partitioning, PartitionProfile, Placement
from dra_driver.rules.partitions import Placed, layouts_beside


def is_exact(partitioning: Partitioning, split: PartitionProfile) -> bool:
    """Whether counting by parts allows the same as the hardware, whatever stands beside them.

    Tried with one part of each split partition, where the fewest engines are counted, beside every layout that is counted possible.
    """
    wholes = sorted({placement.undivided for placement in split.placements})
    if any(_overlap(one, other) for one, other in combinations(wholes, 2)):
        return False
    return all(
        _is_exact_beside(partitioning, split, chosen)
        for number in range(1, len(wholes) + 1)
        for chosen in combinations(wholes, number)
    )


def _is_exact_beside(
    partitioning: Partitioning, split: PartitionProfile, wholes: tuple[Placement, ...]
) -> bool:
    parts = len(split.placements) // len({one.undivided for one in split.placements})
    taken = {name: amount * len(wholes) for name, amount in split.consumes.items()}
    counted = {name: -(-amount // parts) for name, amount in taken.items()}
    beside = layouts_beside(partitioning, wholes, counted)
    return all(_has_engines(partitioning, layout, taken) for layout in beside)


def _has_engines(
    partitioning: Partitioning, layout: frozenset[Placed], taken: dict[str, int]
) -> bool:
    used = Counter(taken)
    for one in layout:
        profile = partitioning.profile(one.profile_name)
        used.update(profile.consumes if profile else {})
    return all(amount <= partitioning.counters.get(name, 0) for name, amount in used.items())


def _overlap(one: Placement, other: Placement) -> bool:
    return one.start < other.start + other.size and other.start < one.start + one.size
