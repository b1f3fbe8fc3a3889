"""The search against brute force: all assignments in the scheduler's order, each judged as a whole by other code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any, TypeAlias

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dra_driver.model.claim import Constraint, Toleration
from dra_driver.model.quantity import Quantity
from dra_driver.model.slices import Capacity, Device, RequestPolicy, Taint
from dra_driver.rules.consumable import consumption

TOLERATE = (Toleration(operator="Exists"),)


@dataclass(frozen=True)
class Thing:
    """A device. `memory` None: it has none; `held` memory of a shared one, or True for a plain one: by another pod."""

    kind: str
    shared: bool
    tainted: bool
    memory: int | None
    counters: int
    held: int | None


@dataclass(frozen=True)
class Wish:
    """A request, or an alternative. `count` 0 means all."""

    kind: str | None
    count: int
    memory: int | None
    tolerant: bool
    admin: bool = False


@dataclass(frozen=True)
class Puzzle:
    things: tuple[Thing, ...]
    claims: tuple[tuple[tuple[Wish, ...], ...], ...]
    counters: int
    rule: str | None


Choice: TypeAlias = tuple[Wish, tuple[int, ...]]

things = st.builds(
    Thing,
    kind=st.sampled_from("xy"),
    shared=st.booleans(),
    tainted=st.sampled_from([False, False, True]),
    memory=st.sampled_from([None, 2, 4]),
    counters=st.integers(0, 2),
    held=st.sampled_from([None, None, None, 0, 1]),
)
wishes = st.builds(
    Wish,
    kind=st.sampled_from([None, "x", "y"]),
    count=st.sampled_from([1, 1, 1, 2, 0]),
    memory=st.sampled_from([None, None, 1, 3]),
    tolerant=st.booleans(),
)
exact = st.builds(
    lambda wish, admin: (replace(wish, admin=admin),), wishes, st.sampled_from([False, False, True])
)
either = st.tuples(wishes, wishes)
twins = wishes.map(lambda wish: ((wish,), (wish,)))
requests = st.lists(exact | either, min_size=1, max_size=2).map(tuple)
puzzles = st.builds(
    Puzzle,
    things=st.lists(things, min_size=1, max_size=4).map(tuple),
    claims=st.lists(requests | twins, min_size=1, max_size=2).map(tuple),
    counters=st.integers(0, 4),
    rule=st.sampled_from([None, None, "match", "distinct"]),
)


@given(puzzles)
@settings(max_examples=400)
@example(Puzzle((), ((),), 0, None))
@example(
    Puzzle(
        (
            Thing("y", shared=True, tainted=False, memory=None, counters=0, held=None),
            Thing("y", shared=True, tainted=False, memory=2, counters=0, held=1),
        ),
        (((Wish("y", count=0, memory=None, tolerant=False),),),),
        0,
        None,
    )
)
def test_the_solution_is_the_first_of_all(new_world: Any, puzzle: Puzzle) -> None:
    """Feasible exactly where some assignment is valid; then it is the first valid one in the order of the search."""
    if any(wish.count == 0 for claim in puzzle.claims for wishes_ in claim for wish in wishes_):
        puzzle = replace(
            puzzle, rule=None
        )  # all devices under a constraint may be an error instead
    answer = stage(new_world(), puzzle).allocate()
    expected = next((a for a in assignments(puzzle) if is_valid(puzzle, a)), None)
    if expected is None:
        assert not isinstance(answer, tuple)
        return
    given_ = [r.device for allocation in answer for r in allocation.results]
    assert given_ == [f"d{i}" for claim in expected for _, chosen in claim for i in chosen]


def stage(world: Any, puzzle: Puzzle) -> Any:
    """The puzzle as slices and claims."""
    charged = sum(thing.counters for thing in puzzle.things if thing.held is not None)
    world.publish_counters({"set": {"n": charged + puzzle.counters}}, of=2)
    world.publish(*(device(world, i, thing) for i, thing in enumerate(puzzle.things)), of=2)
    for i, thing in enumerate(puzzle.things):
        if thing.held is not None and thing.shared:
            memory = {} if thing.memory is None else {"memory": str(thing.held)}
            world.hold(f"d{i}", share_id="s", consumed=memory)
        elif thing.held is not None:
            world.hold(f"d{i}")
    rules = {"match": Constraint(match="d/kind"), "distinct": Constraint(distinct="d/kind")}
    constraints = (rules[puzzle.rule],) if puzzle.rule else ()
    for claim in puzzle.claims:
        asked = [request(world, f"r{i}", wishes_) for i, wishes_ in enumerate(claim)]
        if asked:
            world.ask(*asked, constraints=constraints)
    return world


def device(world: Any, index: int, thing: Thing) -> Device:
    capacity = {} if thing.memory is None else {"memory": Capacity(value=Quantity.of(thing.memory))}
    bare: Device = world.partition(f"d{index}", n=thing.counters)
    return replace(
        bare,
        attributes={"kind": thing.kind},
        allow_multiple_allocations=thing.shared,
        taints=(Taint(key="t"),) if thing.tainted else (),
        capacity=capacity,
    )


def request(world: Any, name: str, wishes_: Sequence[Wish]) -> Any:
    alternatives = [
        world.request(
            name if len(wishes_) == 1 else f"s{i}",
            mode="ExactCount" if wish.count else "All",
            count=wish.count or 1,
            selectors=(f"kind={wish.kind}",) if wish.kind else (),
            tolerations=TOLERATE if wish.tolerant else (),
            capacity={"memory": str(wish.memory)} if wish.memory else {},
            admin_access=wish.admin,
        )
        for i, wish in enumerate(wishes_)
    ]
    return alternatives[0] if len(wishes_) == 1 else world.first_available(name, *alternatives)


def assignments(puzzle: Puzzle) -> Iterator[list[list[Choice]]]:
    """Every choice of alternatives and devices, in the order of the search, valid or not."""
    slots = [[*choices(puzzle, wishes_)] for claim in puzzle.claims for wishes_ in claim]
    for chosen in product(*slots):
        rest = iter(chosen)
        yield [[next(rest) for _ in claim] for claim in puzzle.claims]


def choices(puzzle: Puzzle, wishes_: Sequence[Wish]) -> Iterator[Choice]:
    for wish in wishes_:
        if wish.count:
            for combination in combinations(range(len(puzzle.things)), wish.count):
                yield wish, combination
            continue
        everything = tuple(i for i, t in enumerate(puzzle.things) if offers(t, wish))
        if everything:
            yield wish, everything


def offers(thing: Thing, wish: Wish) -> bool:
    """Kind and capacity, whoever holds some of it: what "all" means."""
    if wish.kind not in {None, thing.kind} or (wish.memory and thing.memory is None):
        return False
    return thing.memory is None or amount(thing, wish) <= thing.memory


def suits(thing: Thing, wish: Wish) -> bool:
    """There is enough left, too."""
    used = thing.held if thing.shared and thing.held else 0
    return offers(thing, wish) and (
        thing.memory is None or amount(thing, wish) + used <= thing.memory
    )


def amount(thing: Thing, wish: Wish) -> int:
    """What a share takes: all, unless something is asked for."""
    if not thing.shared:
        return wish.memory or 0
    return (thing.memory or 0) if wish.memory is None else wish.memory


def is_valid(puzzle: Puzzle, claims: list[list[Choice]]) -> bool:
    picks = [
        (number, wish, index)
        for number, claim in enumerate(claims)
        for wish, chosen in claim
        for index in chosen
    ]
    return (
        all(is_eligible(puzzle.things[index], wish) for _, wish, index in picks)
        and all(is_unused(puzzle, picks[:place], pick) for place, pick in enumerate(picks))
        and fits_memory(puzzle, picks)
        and fits_counters(puzzle, picks)
        and all(obeys(puzzle, claim) for claim in claims)
    )


def is_eligible(thing: Thing, wish: Wish) -> bool:
    return suits(thing, wish) and (wish.tolerant or not thing.tainted)


def is_unused(
    puzzle: Puzzle, before: Sequence[tuple[int, Wish, int]], pick: tuple[int, Wish, int]
) -> bool:
    claim, wish, index = pick
    if puzzle.things[index].shared:
        return True
    if wish.admin:
        return all((claim, index) != (other, taken) for other, _, taken in before)
    held = puzzle.things[index].held is not None
    return not held and all(index != taken for _, _, taken in before)


def fits_memory(puzzle: Puzzle, picks: Sequence[tuple[int, Wish, int]]) -> bool:
    for index, thing in enumerate(puzzle.things):
        if thing.shared and thing.memory is not None:
            taken = sum(amount(thing, wish) for _, wish, i in picks if i == index)
            if taken + (thing.held or 0) > thing.memory and taken:
                return False
    return True


def fits_counters(puzzle: Puzzle, picks: Sequence[tuple[int, Wish, int]]) -> bool:
    """What is held leaves `counters` in the set; a shared device is charged once."""
    needed = 0
    for index, thing in enumerate(puzzle.things):
        times = sum(i == index for _, _, i in picks)
        if thing.shared:
            times = 0 if thing.held is not None else min(times, 1)
        needed += times * thing.counters
    return needed <= puzzle.counters


def obeys(puzzle: Puzzle, claim: Sequence[Choice]) -> bool:
    kinds = [puzzle.things[index].kind for _, chosen in claim for index in chosen]
    if puzzle.rule == "match":
        return len(set(kinds)) <= 1
    return puzzle.rule != "distinct" or len(set(kinds)) == len(kinds)


@given(
    asked=st.integers(0, 30),
    least=st.integers(0, 10),
    step=st.integers(1, 7),
    most=st.integers(10, 25),
    total=st.integers(0, 30),
)
def test_a_range_gives_the_least_amount_that_will_do(
    asked: int, least: int, step: int, most: int, total: int
) -> None:
    """Among minimum, minimum plus step and so on: the smallest that is asked for or more, if it is allowed at all."""
    policy = RequestPolicy(
        range_min=Quantity.of(least), range_step=Quantity.of(step), range_max=Quantity.of(most)
    )
    gpu = Device(name="g", capacity={"m": Capacity(value=Quantity.of(total), policy=policy)})
    given_ = consumption(gpu, {"m": Quantity.of(asked)})
    wanted = next(value for value in range(least, 200, step) if value >= asked)
    if wanted > min(most, total):
        assert given_ is None
    else:
        assert given_ == {"m": Quantity.of(wanted)}
