"""Where the scheduler of a tested version is known to be wrong and our allocator does not follow it.

Each has a test in `test_upstream_bugs.py` that shows it on the real scheduler, and fails once it is mended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dra_driver.ports import JsonObject
from tests.cluster.differential.case import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamBug:
    """What goes wrong in some of the minors that are tested, and whether a case may be touched by it."""

    what: str
    minors: frozenset[tuple[int, int]]
    concerns: Callable[[Case], bool]


def known_bugs(case: Case, version: tuple[int, int, int]) -> tuple[UpstreamBug, ...]:
    """The bugs that this version may show in this case."""
    return tuple(bug for bug in BUGS if version[:2] in bug.minors and bug.concerns(case))


def _has_all_as_second_choice(case: Case) -> bool:
    return any(
        alternative.get("allocationMode") == "All"
        for claim in case.claims
        for request in claim["spec"]["devices"]["requests"]
        for alternative in request.get("firstAvailable", ())[1:]
    )


def _is_spread_over_nodes(slices: list[JsonObject]) -> bool:
    places = {str(spec.get("nodeName") or spec.get("nodeSelector")) for spec in slices}
    return len(places) > 1


def _is_incomplete(slices: list[JsonObject]) -> bool:
    declared: int = slices[0]["pool"]["resourceSliceCount"]
    return len(slices) != declared


def _is_invalid(slices: list[JsonObject]) -> bool:
    devices = [device["name"] for spec in slices for device in spec.get("devices", ())]
    return len(set(devices)) < len(devices)


def _pools(case: Case) -> Iterator[list[JsonObject]]:
    """The specifications of the slices that make up a pool in one generation."""
    pools: dict[tuple[str, int], list[JsonObject]] = {}
    for published in case.slices:
        pool = published["spec"]["pool"]
        pools.setdefault((pool["name"], pool["generation"]), []).append(published["spec"])
    yield from pools.values()


ALL_AS_SECOND_CHOICE = UpstreamBug(
    what="'All' as an alternative that is not the first is taken for the first after one device",
    minors=frozenset({(1, 34)}),
    concerns=_has_all_as_second_choice,
)
SPREAD_POOL = UpstreamBug(
    what="kubernetes#134466: a pool with slices for other nodes is incomplete, so that 'All' fails",
    minors=frozenset({(1, 34)}),
    concerns=lambda case: any(map(_is_spread_over_nodes, _pools(case))),
)
INCOMPLETE_POOL = UpstreamBug(
    what="kubernetes#130043: devices of a pool that is being updated are given away",
    minors=frozenset({(1, 34)}),
    concerns=lambda case: any(map(_is_incomplete, _pools(case))),
)
INVALID_POOL = UpstreamBug(
    what="a pool that has a device twice fails the attempt on all nodes, if it is met before the search has ended",
    minors=frozenset({(1, 34)}),
    concerns=lambda case: any(map(_is_invalid, _pools(case))),
)
BUGS = (ALL_AS_SECOND_CHOICE, SPREAD_POOL, INCOMPLETE_POOL, INVALID_POOL)
