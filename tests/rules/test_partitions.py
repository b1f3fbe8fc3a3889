"""The placement engine against NVIDIA's and our own published enumerations (reference: sharing-automation 2.2, 2.4, 2.5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from dra_driver.model.device import Partitioning, PartitionProfile, Placement
from dra_driver.rules.partitions import (
    Layout,
    Placed,
    best_placement,
    fits,
    fits_after_repacking,
    layouts,
    legal,
    maximal_layouts,
)


def profile(name: str, size: int, starts: Iterable[int], *, media: int = 0) -> PartitionProfile:
    """Compute slices are the digit that the name begins with."""
    consumes = {"compute-slices": int(name[0]), "ofa-engines": media}
    return PartitionProfile(
        name=name,
        mode="mig",
        memory_bytes=size << 30,
        compute_units=int(name[0]),
        placements=tuple(Placement(start, size) for start in starts),
        consumes={counter: amount for counter, amount in consumes.items() if amount},
        stages=("gpu-instance", "compute-instance"),
    )


BASE = (
    profile("1g", 1, range(7)),
    profile("2g", 2, (0, 2, 4)),
    profile("3g", 4, (0, 4)),
    profile("4g", 4, (0,)),
    profile("7g", 8, (0,), media=1),
)
DOUBLE = profile("1g-double", 2, (0, 2, 4, 6))
MEDIA = profile("1g+me", 1, range(7), media=1)
A30 = (profile("1g", 1, range(4)), profile("2g", 2, (0, 2)), profile("4g", 4, (0,)))


def gpu(profiles: Iterable[PartitionProfile], *, positions: int = 8) -> Partitioning:
    return Partitioning(
        mode="mig",
        whole_mode="whole",
        switchable=True,
        positions=positions,
        counters={"compute-slices": 7 if positions == 8 else 4, "ofa-engines": 1},
        profiles=tuple(profiles),
    )


def placed(name: str, start: int, size: int) -> Placed:
    return Placed(name, Placement(start, size))


def multiset(layout: Layout) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(Counter(one.profile_name for one in layout).items()))


@pytest.mark.parametrize(
    ("partitioning", "states", "multisets", "maximal"),
    [
        pytest.param(gpu(BASE), 298, 38, 19, id="seven-slices-base"),
        pytest.param(gpu((*BASE, DOUBLE)), 723, 78, 78, id="with-1g-double"),
        pytest.param(gpu((*BASE, DOUBLE, MEDIA)), 2319, 128, 239, id="all-seven-profiles"),
        pytest.param(gpu(A30, positions=4), 26, 10, 5, id="a30"),
    ],
)
def test_enumeration_gives_the_published_numbers(
    partitioning: Partitioning, states: int, multisets: int, maximal: int
) -> None:
    """Legal states (the empty one counts), multisets of profiles, and maximal placements are the known ones."""
    found = list(layouts(partitioning))
    assert len(found) == len(set(found)) == states
    assert len({multiset(layout) for layout in found}) == multisets
    assert len(list(maximal_layouts(partitioning))) == maximal


def test_every_enumerated_layout_is_legal() -> None:
    """`layouts` and `legal` are two ways to the same answer."""
    assert all(legal(gpu(BASE), layout) for layout in layouts(gpu(BASE)))


def test_what_fits_leads_to_a_legal_layout_and_nothing_else_does() -> None:
    """For every state and every placement: it is in `fits` exactly if adding it is legal."""
    partitioning = gpu(BASE)
    everything = [Placed(p.name, place) for p in BASE for place in p.placements]
    for layout in layouts(partitioning):
        possible = {one for one in everything if legal(partitioning, (*layout, one))}
        assert set(fits(partitioning, layout)) == possible


def test_overlap_is_illegal() -> None:
    """Two partitions never share a position, nor does one stand twice at the same place."""
    assert not legal(gpu(BASE), [placed("3g", 4, 4), placed("1g", 6, 1)])
    assert not legal(gpu(BASE), [placed("1g", 6, 1), placed("1g", 6, 1)])


def test_exhausted_counters_are_illegal_where_positions_are_free() -> None:
    """There is one media engine, so a second +me does not fit however many slices are free."""
    partitioning = gpu((*BASE, MEDIA))
    assert not legal(partitioning, [placed("1g+me", 0, 1), placed("1g+me", 1, 1)])
    left = {one.profile_name for one in fits(partitioning, [placed("1g+me", 6, 1)])}
    assert left == {"1g", "2g", "3g", "4g"}


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(placed("4g", 4, 4), id="start-that-the-profile-lacks"),
        pytest.param(placed("5g", 0, 5), id="unknown-profile"),
        pytest.param(placed("1g", 7, 1), id="position-out-of-reach"),
    ],
)
def test_beside_what_we_do_not_understand_nothing_fits(odd: Placed) -> None:
    """A state that cannot be is illegal, and the engine promises nothing beside it."""
    assert not legal(gpu(BASE), [odd])
    assert fits(gpu(BASE), [odd]) == ()
    assert best_placement(gpu(BASE), [odd], "1g") is None


@pytest.mark.parametrize("start", [0, 4])
def test_some_layouts_depend_on_where_the_3g_stands(start: int) -> None:
    """3g+2g+1g+1g exists only with the 3g at 4, in two ways: creation order decides whether a layout can be had."""
    wanted = {"3g": 1, "2g": 1, "1g": 2}
    found = [
        layout
        for layout in layouts(gpu(BASE))
        if dict(multiset(layout)) == wanted and placed("3g", start, 4) in layout
    ]
    with_2g_at = {
        one.placement.start for layout in found for one in layout if one.profile_name == "2g"
    }
    assert with_2g_at == ({0, 2} if start == 4 else set())


@pytest.mark.parametrize("name", ["1g", "2g", "3g", "4g", "7g", "1g-double"])
def test_on_an_empty_gpu_the_best_start_is_the_highest(name: str) -> None:
    """The engine agrees with the order in which devices are published, which a stock scheduler follows."""
    partitioning = gpu((*BASE, DOUBLE, MEDIA))
    chosen = partitioning.profile(name)
    assert chosen is not None
    assert best_placement(partitioning, [], name) == max(chosen.placements)


def test_the_best_placement_leaves_room_for_the_larger() -> None:
    """Beside a 1g at 0, a 2g goes where the half that is still whole stays whole."""
    assert best_placement(gpu(BASE), [placed("1g", 0, 1)], "2g") == Placement(2, 2)


def test_no_room_is_no_placement() -> None:
    """A full GPU has no best placement."""
    assert best_placement(gpu(BASE), [placed("7g", 0, 8)], "1g") is None


def test_repacking_finds_a_layout_for_every_multiset_that_has_one() -> None:
    """For each of the 38 multisets a layout with exactly those profiles is found."""
    for names in {multiset(layout) for layout in layouts(gpu(BASE))}:
        wanted = list(Counter(dict(names)).elements())
        packed = fits_after_repacking(gpu(BASE), wanted)
        assert packed is not None
        assert legal(gpu(BASE), packed)
        assert multiset(packed) == names


@pytest.mark.parametrize(
    "names", [["4g", "4g"], ["4g", "3g", "1g"], ["1g"] * 8, ["7g", "1g"], ["5g"]]
)
def test_repacking_refuses_what_no_layout_holds(names: list[str]) -> None:
    """What is in no layout is None, profiles that the GPU lacks included."""
    assert fits_after_repacking(gpu(BASE), names) is None
