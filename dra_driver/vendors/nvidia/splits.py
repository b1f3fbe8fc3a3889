"""Which partitions may be split between compute instances: asked for by name, and only where counters keep the parts apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import structlog

from dra_driver.model.device import Partitioning, PartitionProfile
from dra_driver.rules.splitting import is_exact
from dra_driver.vendors.nvidia.mig_names import part_name

log = structlog.get_logger(__name__)

PART_SLICES = (1, 2)
"""The sizes of which a GPU instance has as many as it has slices for, at multiples of the size; of larger ones we do not know it."""

_COMPUTE_SLICES = "compute-slices"


class Splits:
    """Knows what may be split; safe to use from several threads. `wanted` are names of profiles, the first that a GPU has counts."""

    def __init__(self, wanted: Sequence[str] = ()) -> None:
        self._wanted = wanted
        self._known: list[tuple[Partitioning, PartitionProfile | None]] = []

    def offered(self, partitioning: Partitioning) -> Partitioning:
        """The partitioning, with the profile that it may offer; found out once for GPUs that can be cut alike."""
        if not self._wanted:
            return partitioning
        for known, split in self._known:
            if (known.profiles, known.counters) == (partitioning.profiles, partitioning.counters):
                return replace(partitioning, split=split)
        found = _first_exact(partitioning, self._wanted)
        if found is None:
            log.warning(
                "no MIG partition of this kind of GPU is split",
                wanted=",".join(self._wanted),
                possible=",".join(
                    split.name
                    for split in possible_splits(partitioning)
                    if is_exact(partitioning, split)
                ),
            )
        self._known.append((partitioning, found))
        return replace(partitioning, split=found)


def possible_splits(partitioning: Partitioning) -> Iterator[PartitionProfile]:
    """All profiles of parts that the GPU's partitions could have, two or more of each."""
    smallest = min(profile.compute_units for profile in partitioning.profiles)
    for whole in partitioning.profiles:
        for slices in PART_SLICES:
            split = _split(whole, slices, smallest)
            if len(split.placements) > len(whole.placements):
                yield split


def _first_exact(partitioning: Partitioning, wanted: Sequence[str]) -> PartitionProfile | None:
    for name in wanted:
        for split in possible_splits(partitioning):
            if split.name == name and is_exact(partitioning, split):
                return split
    return None


def _split(whole: PartitionProfile, slices: int, smallest: int) -> PartitionProfile:
    """Nobody tells multiprocessors before there is an instance: at least as many as the smallest partition has for each slice."""
    parts = range(whole.consumes[_COMPUTE_SLICES] // slices)
    return replace(
        whole,
        name=part_name(slices, whole.name),
        whole=whole.name,
        compute_units=slices * smallest,
        placements=tuple(replace(p, part=part) for p in whole.placements for part in parts),
    )
