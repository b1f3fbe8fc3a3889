"""Claims as the API server has them now, and which of them are calls that come too late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dra_driver.kube.backoff import Backoff
from dra_driver.kube.codec import allocated_claim_from_json
from dra_driver.model.claim import AllocatedClaim, ClaimRef
from dra_driver.model.errors import ClaimReleased, ClaimReplaced, KubeError, Unavailable
from dra_driver.model.kinds import RESOURCE_CLAIM
from dra_driver.ports import Clock, JsonObject, KubeApi
from kubelet_plugin.telemetry import Telemetry

REMEMBERED_S = 60.0
"""Late calls come within this time. No longer, as a PodGroup gives a claim its next pod without changing the claim."""
PREPARED_KEPT = 2_000
"""The newest: what the reconciler or another process releases is never taken out by a call."""
ASK_AGAIN_S = 2.0
ASK_AGAIN_MAX_S = 8.0
"""Pauses between two questions to an API server that is away; each is shortened by up to half."""
RETRY_AFTER_MAX_S = 30.0
"""The longest pause that the API server may ask for: less than a call lasts."""
AWAY = frozenset({0, 429, 502, 503, 504})
"""No answer, or none for anybody now. Any other failure, such as a 500, may be that of the one claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Absence:
    failure: Unavailable
    ask_not_before_s: float


class ClaimSource:
    """`api` gives the API server's client as soon as there is one.

    A prepare may arrive after the unprepare of the same claim. A new user of a claim is written into it first, so what has the
    resourceVersion with which it was prepared before has none.
    """

    def __init__(
        self, api: Callable[[], Awaitable[KubeApi]], clock: Clock, telemetry: Telemetry
    ) -> None:
        self._api = api
        self._telemetry = telemetry
        self._clock = clock
        self._backoff = _pauses()
        self._asking = asyncio.Lock()
        self._away: _Absence | None = None
        self._prepared: dict[str, str] = {}  # in the order of time
        self._released: dict[str, tuple[str, float]] = {}  # in the order of time

    async def read(self, claim: ClaimRef, *, until: float) -> AllocatedClaim:
        """The claim, by one consistent GET; while the API server is away, by more of them `until` then (in the loop's time).

        Raises KubeError, ClaimReplaced where the name has another UID, ClaimReleased if the call is late.
        """
        with self._telemetry.phase("fetch"):
            answer = await self._answer(claim, until)
        found = allocated_claim_from_json(answer)
        if found.ref.uid != claim.uid:
            raise ClaimReplaced(
                f"claim {claim} has UID {found.ref.uid} by now, not {claim.uid}; the kubelet asks again for the new one"
            )
        version, since = self._released.get(claim.uid, (None, 0.0))
        is_recent = self._clock.monotonic() - since <= REMEMBERED_S
        if version == found.resource_version and is_recent:
            raise ClaimReleased(
                f"claim {claim} was unprepared and has no new user since (resourceVersion {version}); "
                "the kubelet asks again if a pod needs it"
            )
        return found

    async def _answer(self, claim: ClaimRef, until: float) -> JsonObject:
        """A failed call costs its pod 90 s, so it goes on asking."""
        api = await self._api()
        try:
            if self._away is None:
                return await self._get(api, claim)
            failure = self._away.failure
        except Unavailable as error:
            failure = error
        alone = _pauses()
        try:
            async with asyncio.timeout_at(until):
                while True:
                    if failure.status not in AWAY:
                        await self._clock.sleep(_pause_s(failure, alone))
                    try:
                        return await self._get_in_turn(api, claim)
                    except Unavailable as error:
                        failure = error
        except TimeoutError:
            raise failure from None

    async def _get_in_turn(self, api: KubeApi, claim: ClaimRef) -> JsonObject:
        """While the API server is away, one call at a time asks, for all that wait."""
        if self._away is None:
            return await self._get(api, claim)
        async with self._asking:
            if self._away is not None:
                pause_s = self._away.ask_not_before_s - self._clock.monotonic()
                await self._clock.sleep(max(pause_s, 0.0))
            return await self._get(api, claim)

    async def _get(self, api: KubeApi, claim: ClaimRef) -> JsonObject:
        try:
            answer = await api.get(RESOURCE_CLAIM, claim.name, namespace=claim.namespace)
        except KubeError as failure:
            if isinstance(failure, Unavailable) and failure.status in AWAY:
                self._miss(failure)
            else:
                self._meet()
            raise
        self._meet()
        return answer

    def _miss(self, failure: Unavailable) -> None:
        """The API server is away. Calls that find it out together make one pause, which outlives them."""
        now = self._clock.monotonic()
        if self._away is None or now >= self._away.ask_not_before_s:
            ask_not_before_s = now + _pause_s(failure, self._backoff)
            self._away = _Absence(failure=failure, ask_not_before_s=ask_not_before_s)

    def _meet(self) -> None:
        """The API server is there."""
        self._away = None
        self._backoff.reset()

    def prepared(self, claim: AllocatedClaim) -> None:
        """It was prepared as it was read."""
        self._prepared.pop(claim.ref.uid, None)
        self._prepared[claim.ref.uid] = claim.resource_version
        if len(self._prepared) > PREPARED_KEPT:
            del self._prepared[next(iter(self._prepared))]

    def released(self, claim: ClaimRef) -> None:
        """It was unprepared; that is remembered for `REMEMBERED_S`."""
        now = self._clock.monotonic()
        while self._released and now - next(iter(self._released.values()))[1] > REMEMBERED_S:
            del self._released[next(iter(self._released))]
        version = self._prepared.pop(claim.uid, None)
        if version is not None:
            self._released.pop(claim.uid, None)
            self._released[claim.uid] = version, now


def _pauses() -> Backoff:
    return Backoff(first_s=ASK_AGAIN_S, most_s=ASK_AGAIN_MAX_S)


def _pause_s(failure: Unavailable, pauses: Backoff) -> float:
    """As long as the server asks for, within reason."""
    return max(pauses.pause_s(), min(failure.retry_after_s or 0.0, RETRY_AFTER_MAX_S))
