"""Claims as the API server has them now, and which of them are calls that come too late."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from dra_driver.kube.codec import allocated_claim_from_json
from dra_driver.model.claim import AllocatedClaim, ClaimRef
from dra_driver.model.errors import ClaimReleased, ClaimReplaced
from dra_driver.model.kinds import RESOURCE_CLAIM
from dra_driver.ports import Clock, KubeApi
from kubelet_plugin.telemetry import Telemetry

REMEMBERED_S = 600.0


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
        self._prepared: dict[str, str] = {}
        self._released: dict[str, tuple[str, float]] = {}  # in the order of time

    async def read(self, claim: ClaimRef) -> AllocatedClaim:
        """The claim, by one consistent GET. KubeError, ClaimReplaced where the name has another UID, ClaimReleased if late."""
        with self._telemetry.phase("fetch"):
            api = await self._api()
            answer = await api.get(RESOURCE_CLAIM, claim.name, namespace=claim.namespace)
        found = allocated_claim_from_json(answer)
        if found.ref.uid != claim.uid:
            raise ClaimReplaced(
                f"claim {claim} has UID {found.ref.uid} by now, not {claim.uid}; the kubelet asks again for the new one"
            )
        version, _ = self._released.get(claim.uid, (None, 0.0))
        if version == found.resource_version:
            raise ClaimReleased(
                f"claim {claim} was unprepared and has no new user since (resourceVersion {version}); "
                "the kubelet asks again if a pod needs it"
            )
        return found

    def prepared(self, claim: AllocatedClaim) -> None:
        """It was prepared as it was read."""
        self._prepared[claim.ref.uid] = claim.resource_version

    def released(self, claim: ClaimRef) -> None:
        """It was unprepared; that is remembered for ten minutes."""
        now = self._clock.monotonic()
        while self._released and now - next(iter(self._released.values()))[1] > REMEMBERED_S:
            del self._released[next(iter(self._released))]
        version = self._prepared.pop(claim.uid, None)
        if version is not None:
            self._released.pop(claim.uid, None)
            self._released[claim.uid] = version, now
