"""Calls for one claim: which ones share an execution, and in which order the others follow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from dra_driver.model.errors import ClaimError
from kubelet_plugin.flights import Flight, Flights
from kubelet_plugin.slow_lane import PATIENCE

UID = "a"


class Runway:
    """Flights whose executions each wait for their own gate, and say when they began and ended.

    Those of `pausing` are committed up to the gate, and then wait for a second one.
    """

    def __init__(self) -> None:
        self.flights = Flights()
        self.began: list[str] = []
        self.ended: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.pausing: set[str] = set()
        self.running: dict[str, Flight] = {}

    def call(
        self, name: str, operation: str, *, committed: bool = False, uid: str = UID
    ) -> asyncio.Task[str]:
        """A caller that wants the operation; its execution, if it gets one of its own, has that name."""
        self.gates[name] = asyncio.Event()
        self.gates[f"{name}, after"] = asyncio.Event()

        async def execute(flight: Flight) -> str:
            self.began.append(name)
            self.running[name] = flight
            try:
                flight.committed = committed or name in self.pausing
                await self.gates[name].wait()
                if name in self.pausing:
                    flight.reconsider()
                    await self.gates[f"{name}, after"].wait()
            finally:
                self.ended.append(name)
            return name

        return asyncio.create_task(
            self.flights.join(uid, Flight(operation, committed=committed), execute)
        )

    def prepare(self, name: str) -> asyncio.Task[str]:
        return self.call(name, "prepare")

    def unprepare(self, name: str) -> asyncio.Task[str]:
        return self.call(name, "unprepare", committed=True)

    def open_all(self) -> None:
        for gate in self.gates.values():
            gate.set()


async def settle() -> None:
    """Let everything happen that can happen now: nothing here waits for anything but the loop, and this keeps it from being quiet."""
    for _ in range(10 * PATIENCE):
        await asyncio.sleep(0)


async def cancel(call: asyncio.Task[str]) -> None:
    """The caller goes away."""
    call.cancel()
    await settle()
    assert call.cancelled()


@pytest.fixture
def runway() -> Runway:
    return Runway()


async def test_equal_calls_share_one_execution(runway: Runway) -> None:
    """Also those that come while it is half done; every caller gets its result."""
    calls = [runway.prepare(f"p{number}") for number in range(3)]
    await settle()
    calls.append(runway.prepare("late"))
    await settle()
    assert runway.began == ["p0"]
    runway.open_all()
    assert list(await asyncio.gather(*calls)) == ["p0"] * 4


async def test_other_claims_are_independent(runway: Runway) -> None:
    """One claim's execution delays no other claim's."""
    first = runway.prepare("p")
    other = runway.call("other", "unprepare", committed=True, uid="b")
    await settle()
    assert runway.began == ["p", "other"]
    runway.open_all()
    assert list(await asyncio.gather(first, other)) == ["p", "other"]


async def test_a_prepare_after_an_unprepare_does_not_join_the_one_before_it(
    runway: Runway,
) -> None:
    """P, U, P: the second prepare runs after the unprepare, which would otherwise destroy what its caller was promised."""
    first = runway.prepare("p1")
    await settle()
    runway.running["p1"].committed = True
    between = runway.unprepare("u")
    await settle()
    second = runway.prepare("p2")
    await settle()
    assert runway.began == ["p1"]
    runway.open_all()
    assert list(await asyncio.gather(first, between, second)) == ["p1", "u", "p2"]
    assert runway.ended == ["p1", "u", "p2"]


async def test_an_unprepare_after_a_prepare_does_not_join_the_one_before_it(
    runway: Runway,
) -> None:
    """U, P, U: whatever the prepare in between makes is released."""
    first = runway.unprepare("u1")
    await settle()
    between = runway.prepare("p")
    await settle()
    runway.open_all()
    assert await first == "u1"
    await settle()
    last = runway.unprepare("u2")
    assert await between == "p"
    runway.open_all()
    assert await last == "u2"


async def test_a_prepare_that_only_waits_gives_way(runway: Runway) -> None:
    """An unprepare comes: the prepare's callers are told so at once, in words, and the unprepare does not wait for them."""
    waiting = [runway.prepare("p"), runway.prepare("same")]
    await settle()
    release = runway.unprepare("u")
    await settle()
    assert runway.ended == ["p"]
    assert runway.began == ["p", "u"]
    for call in waiting:
        with pytest.raises(ClaimError, match="gave way"):
            await call
    runway.open_all()
    assert await release == "u"


async def test_a_committed_prepare_is_not_cut_off_by_an_unprepare(runway: Runway) -> None:
    """What has begun is finished first; then it is undone."""
    prepare = runway.prepare("p")
    await settle()
    runway.running["p"].committed = True
    release = runway.unprepare("u")
    await settle()
    assert runway.began == ["p"]
    runway.open_all()
    assert list(await asyncio.gather(prepare, release)) == ["p", "u"]


async def test_one_caller_that_goes_away_leaves_the_others_theirs(runway: Runway) -> None:
    """Even the one who began it."""
    first, second = runway.prepare("p"), runway.prepare("same")
    await settle()
    await cancel(first)
    runway.open_all()
    assert await second == "p"


async def test_without_callers_an_uncommitted_execution_ends(runway: Runway) -> None:
    """Nobody waits for the answer and nothing was begun: the claim is free at once."""
    call = runway.prepare("p")
    await settle()
    await cancel(call)
    assert runway.ended == ["p"]
    await asyncio.wait_for(runway.flights.finish(), 1)


async def test_without_callers_a_committed_execution_goes_on(runway: Runway) -> None:
    """The caller's retry joins it, and gets its result."""
    call = runway.prepare("p")
    await settle()
    runway.running["p"].committed = True
    await cancel(call)
    assert runway.ended == []
    retry = runway.prepare("again")
    await settle()
    runway.open_all()
    assert await retry == "p"
    assert runway.began == ["p"]


@pytest.mark.parametrize("follow", [False, True], ids=["no-caller", "unprepare-follows"])
async def test_what_nobody_wants_ends_once_it_can(runway: Runway, *, follow: bool) -> None:
    """Its caller went away, or an unprepare came, while it could not be stopped: it begins nothing more."""
    runway.pausing.add("p")
    call = runway.prepare("p")
    await settle()
    if follow:
        release = runway.unprepare("u")
        await settle()
    else:
        await cancel(call)
    assert runway.ended == []
    runway.gates["p"].set()
    await settle()
    assert runway.ended == ["p"]
    if follow:
        with pytest.raises(ClaimError, match="gave way"):
            await call
        runway.open_all()
        assert await release == "u"


async def test_what_is_wanted_again_goes_on(runway: Runway) -> None:
    """The caller went away while it could not be stopped, and came back before it could."""
    runway.pausing.add("p")
    call = runway.prepare("p")
    await settle()
    await cancel(call)
    again = runway.prepare("again")
    await settle()
    runway.gates["p"].set()
    await settle()
    assert runway.ended == []
    runway.open_all()
    assert await again == "p"


async def test_calls_follow_one_another_though_one_between_them_was_given_up(
    runway: Runway,
) -> None:
    """U, P, U with the first unprepare still busy: no two executions of a claim ever overlap."""
    first = runway.unprepare("u1")
    await settle()
    between = runway.prepare("p")
    await settle()
    last = runway.unprepare("u2")
    await settle()
    assert runway.began == ["u1"]
    with pytest.raises(ClaimError):
        await between
    after = runway.prepare("p2")
    await settle()
    assert runway.began == ["u1"]
    runway.open_all()
    assert list(await asyncio.gather(first, last, after)) == ["u1", "u2", "p2"]
    assert runway.began == runway.ended == ["u1", "u2", "p2"]


@pytest.mark.parametrize("give_up", [False, True], ids=["running", "follower-given-up"])
async def test_finish_waits_for_everything_under_way(runway: Runway, *, give_up: bool) -> None:
    """Also for an execution whose follower's caller has gone away, and for one that nobody waits for."""
    first = runway.unprepare("u")
    await settle()
    if give_up:
        follower = runway.prepare("p")
        await settle()
        await cancel(follower)
    await cancel(first)
    finishing = asyncio.create_task(runway.flights.finish())
    await settle()
    assert not finishing.done()
    runway.open_all()
    await asyncio.wait_for(finishing, 1)
    assert runway.ended == ["u"]


async def test_a_failure_reaches_every_caller_and_ends_with_them(runway: Runway) -> None:
    """The next call is a new try."""

    async def fail(_: Flight) -> str:
        await asyncio.sleep(0)
        raise ClaimError("no")

    calls: list[Awaitable[str]] = [
        runway.flights.join(UID, Flight("prepare"), fail) for _ in range(2)
    ]
    assert [str(one) for one in await asyncio.gather(*calls, return_exceptions=True)] == ["no"] * 2
    again = runway.prepare("p")
    runway.open_all()
    assert await again == "p"


async def test_a_failure_that_nobody_waits_for_is_not_reported_as_a_bug(
    runway: Runway, capture_loop_errors: list[str]
) -> None:
    """The caller went away, the execution failed later: asyncio has nothing to complain about."""
    gate = asyncio.Event()

    async def fail(flight: Flight) -> str:
        flight.committed = True
        await gate.wait()
        raise ClaimError("no")

    call = asyncio.create_task(runway.flights.join(UID, Flight("prepare"), fail))
    await settle()
    await cancel(call)
    gate.set()
    await runway.flights.finish()
    await settle()
    assert capture_loop_errors == []


@pytest.fixture
async def capture_loop_errors() -> list[str]:
    """What asyncio's exception handler was told."""
    told: list[str] = []

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        told.append(str(context["message"]))

    asyncio.get_running_loop().set_exception_handler(handle)
    return told
