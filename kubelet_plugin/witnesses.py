"""Who is asked before something is taken from a claim that nobody gave back: the API server twice, and the kubelet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from dra_driver.kube.codec import allocated_claim_from_json
from dra_driver.model.errors import NotFound
from dra_driver.model.kinds import RESOURCE_CLAIM
from dra_driver.model.record import ClaimRecord
from dra_driver.ports import Clock, KubeApi
from kubelet_plugin.planner import results_of_node

INTERVAL_S = 600.0
"""Between two looks at everything."""
CONFIRM_S = 10.0
"""Between the two answers."""


class Witnesses:
    """Who is asked about a claim: the API server, and the kubelet about the pods that use it (`in_use`: namespace and name)."""

    def __init__(
        self,
        node: str,
        api: Callable[[], Awaitable[KubeApi]],
        in_use: Callable[[], Awaitable[Collection[tuple[str, str]]]],
        clock: Clock,
    ) -> None:
        self._node = node
        self._api = api
        self._in_use = in_use
        self.clock = clock
        self._gone_since: dict[str, float] = {}

    @property
    def doubts(self) -> frozenset[str]:
        """The claims for which one answer said that they are gone."""
        return frozenset(self._gone_since)

    def forget_all_but(self, uids: Collection[str]) -> None:
        """Only these claims are of interest any more."""
        self._gone_since = {uid: t for uid, t in self._gone_since.items() if uid in uids}

    async def agree_that_gone(self, record: ClaimRecord) -> bool:
        """Whether it is sure that what the record holds is not the claim's any more. Raises DraError where somebody does not answer.

        The API server is asked again only when its answer can settle the matter.
        """
        claim = record.claim
        since = self._gone_since.get(claim.uid)
        if since is not None:
            if self.clock.monotonic() - since < CONFIRM_S:
                return False
            if (claim.namespace, claim.name) in await self._in_use():
                return False
        if not await self._is_gone(record):
            self._gone_since.pop(claim.uid, None)
            return False
        if since is None:
            self._gone_since[claim.uid] = self.clock.monotonic()
            return False
        self._gone_since.pop(claim.uid, None)
        return True

    async def _is_gone(self, record: ClaimRecord) -> bool:
        """Not there, another one by now, or given other devices than these."""
        api, claim = await self._api(), record.claim
        try:
            answer = await api.get(RESOURCE_CLAIM, claim.name, namespace=claim.namespace)
        except NotFound:
            return True
        found = allocated_claim_from_json(answer)
        allocated = {(r.pool, r.device) for r in results_of_node(found, self._node)}
        return found.ref.uid != claim.uid or allocated != {
            (grant.pool, grant.device) for grant in record.grants
        }
