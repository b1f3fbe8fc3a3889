"""Which version of a claim is prepared, and which calls come too late."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

import pytest

from dra_driver.model.errors import ClaimReleased, ClaimReplaced, NotFound, Unavailable
from dra_driver.model.kinds import Kind
from dra_driver.ports import Clock, JsonObject, KubeApi
from kubelet_plugin.claim_source import PREPARED_KEPT, ClaimSource
from tests.faults import virtual_time
from tests.faults.virtual_time import LoopClock
from tests.kubelet_plugin.conftest import (
    CountingApi,
    NewClaim,
    Recorded,
    SetClock,
    ref,
    telemetry_of,
)

WHOLE = "gpu-0000-1b-00-0"


@dataclass
class FailingApi(CountingApi):
    """Fails as it is told, for the claims of these names."""

    failures: dict[str, Unavailable] = field(default_factory=dict)

    async def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> JsonObject:
        found = await super().get(kind, name, namespace=namespace)
        if name in self.failures:
            raise self.failures[name]
        return found


@pytest.fixture
def api() -> FailingApi:
    return FailingApi()


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def source(api: FailingApi, clock: SetClock) -> ClaimSource:
    return source_of(api, clock)


def source_of(api: FailingApi, clock: Clock) -> ClaimSource:
    async def client() -> KubeApi:
        return api  # type: ignore[return-value] # as much of it as is asked

    return ClaimSource(client, clock, telemetry_of(Recorded()))


async def prepare_and_release(source: ClaimSource, claim: JsonObject) -> None:
    source.prepared(await source.read(ref(claim), until=math.inf))
    source.released(ref(claim))


async def test_a_prepare_after_the_unprepare_is_late(
    source: ClaimSource, new_claim: NewClaim
) -> None:
    """Nobody uses the claim since: the call is told so, in a way that may be tried again."""
    claim = new_claim(WHOLE)
    await prepare_and_release(source, claim)
    with pytest.raises(ClaimReleased, match=r"claim default/claim-1 .*resourceVersion 1") as late:
        await source.read(ref(claim), until=math.inf)
    assert late.value.retryable


async def test_a_new_user_of_the_claim_is_no_late_call(
    source: ClaimSource, new_claim: NewClaim
) -> None:
    """Users are written into the claim first, which gives it another version."""
    claim = new_claim(WHOLE)
    await prepare_and_release(source, claim)
    claim["metadata"]["resourceVersion"] = "2"
    assert (await source.read(ref(claim), until=math.inf)).ref == ref(claim)


async def test_a_claim_that_was_never_prepared_here_is_no_late_call(
    source: ClaimSource, new_claim: NewClaim
) -> None:
    """An unprepare of an unknown claim says nothing about what comes."""
    claim = new_claim(WHOLE)
    source.released(ref(claim))
    assert (await source.read(ref(claim), until=math.inf)).ref == ref(claim)


async def test_a_release_is_remembered_for_a_minute(
    source: ClaimSource, new_claim: NewClaim, clock: SetClock
) -> None:
    """Then the unchanged claim may be prepared again: one that a PodGroup uses gets its next pod without a write."""
    claim = new_claim(WHOLE)
    await prepare_and_release(source, claim)
    clock.now += 59
    with pytest.raises(ClaimReleased):
        await source.read(ref(claim), until=math.inf)
    clock.now += 2
    await prepare_and_release(source, claim)
    with pytest.raises(ClaimReleased):
        await source.read(ref(claim), until=math.inf)


async def test_only_the_newest_prepared_claims_are_known(
    source: ClaimSource, new_claim: NewClaim
) -> None:
    """Claims that go without an unprepare cost no memory for ever; one that is prepared again counts as new."""
    again, forgotten, *others = claims = [new_claim(WHOLE) for _ in range(PREPARED_KEPT + 1)]
    for claim in (*claims[:-1], again, claims[-1]):
        source.prepared(await source.read(ref(claim), until=math.inf))
    for claim in claims:
        source.released(ref(claim))
    assert (await source.read(ref(forgotten), until=math.inf)).ref == ref(forgotten)
    for claim in (again, *others):
        with pytest.raises(ClaimReleased):
            await source.read(ref(claim), until=math.inf)


async def test_a_claim_of_the_same_name_is_another_one(
    source: ClaimSource, new_claim: NewClaim, api: FailingApi
) -> None:
    """Both UIDs are named; a claim that is gone is NotFound."""
    claim, other = new_claim(WHOLE), new_claim(WHOLE)
    api.claims["claim-1"] = other
    with pytest.raises(ClaimReplaced, match=r"000000000002 by now, not .*000000000001"):
        await source.read(ref(claim), until=math.inf)
    del api.claims["claim-1"]
    with pytest.raises(NotFound):
        await source.read(ref(claim), until=math.inf)


@pytest.mark.parametrize("status", [0, 429, 502, 503, 504])
def test_while_the_api_server_is_away_one_call_asks_for_all(
    new_claim: NewClaim, api: FailingApi, status: int
) -> None:
    """At most once a second, however many claims wait; all are answered soon after it is back, and in time if it is not."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        source = source_of(api, LoopClock())
        claims = [new_claim(WHOLE) for _ in range(20)]
        away = {f"claim-{n}": Unavailable("away", status=status) for n in range(1, 21)}
        api.failures.update(away)
        began, until = loop.time(), loop.time() + 42.0
        reads = [asyncio.create_task(source.read(ref(claim), until=until)) for claim in claims]
        await asyncio.sleep(30)
        assert api.gets <= len(claims) + 30
        api.failures.clear()
        await asyncio.gather(*reads)
        assert loop.time() - began < 40
        api.failures.update(away)
        with pytest.raises(Unavailable):
            await source.read(ref(claims[0]), until=loop.time() + 10)
        assert loop.time() - began < 55

    virtual_time.run(main())


@pytest.mark.parametrize(("retry_after_s", "waited_s"), [(25.0, 25), (3600.0, 30)])
def test_a_retry_after_is_waited_for_once_however_many_calls_it_takes(
    new_claim: NewClaim, api: FailingApi, retry_after_s: float, waited_s: float
) -> None:
    """Each call goes on where the last one ended; and half a minute is the most that is waited."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        source = source_of(api, LoopClock())
        claim = new_claim(WHOLE)
        api.failures["claim-1"] = Unavailable("429", status=429, retry_after_s=retry_after_s)
        began = loop.time()
        for _ in range(math.ceil(waited_s / 10) - 1):
            with pytest.raises(Unavailable):
                await source.read(ref(claim), until=loop.time() + 10)
        assert api.gets == 1
        api.failures.clear()
        await source.read(ref(claim), until=loop.time() + 11)
        assert (api.gets, round(loop.time() - began)) == (2, waited_s)

    virtual_time.run(main())


def test_after_an_outage_that_nobody_saw_end_the_next_call_asks_at_once(
    new_claim: NewClaim, api: FailingApi
) -> None:
    """The pause is counted from the last answer, not from the call."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        source = source_of(api, LoopClock())
        claim = new_claim(WHOLE)
        api.unavailable = True
        with pytest.raises(Unavailable):
            await source.read(ref(claim), until=loop.time() + 42)
        api.unavailable = False
        await asyncio.sleep(60)
        began = loop.time()
        await source.read(ref(claim), until=began + 42)
        assert loop.time() == began

    virtual_time.run(main())


def test_a_claim_that_alone_cannot_be_read_delays_no_other(
    new_claim: NewClaim, api: FailingApi
) -> None:
    """Its own call goes on asking, and is answered as soon as it can be; all others are answered at once meanwhile."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        source = source_of(api, LoopClock())
        sick, *others = [new_claim(WHOLE) for _ in range(20)]
        api.failures["claim-1"] = Unavailable("cannot be converted", status=500)
        began = loop.time()
        waiting = asyncio.create_task(source.read(ref(sick), until=began + 42))
        await asyncio.sleep(20)
        assert 3 <= api.gets <= 20
        began = loop.time()
        for claim in others:
            await source.read(ref(claim), until=began + 42)
        assert loop.time() == began
        api.failures.clear()
        assert (await waiting).ref == ref(sick)
        assert loop.time() - began < 10

    virtual_time.run(main())
