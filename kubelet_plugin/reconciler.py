"""Claims that the API server does not know any more, or knows to be elsewhere: the kubelet never unprepares some of them.

A node that was lost and came back, a kubelet that lost its state, a claim deleted by force: what they held would stay held. It is
released on two answers of the API server, some time apart, and only if the kubelet says that no pod uses it. No answer is no
reason to release anything.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection

import structlog
from structlog.contextvars import bound_contextvars

from dra_driver.kube.codec import allocated_claim_from_json
from dra_driver.model.claim import ClaimRef
from dra_driver.model.errors import DraError, NotFound, Unavailable
from dra_driver.model.kinds import RESOURCE_CLAIM
from dra_driver.model.record import ClaimRecord
from dra_driver.ports import Clock, KubeApi
from kubelet_plugin.executor import Executor
from kubelet_plugin.planner import results_of_node
from kubelet_plugin.state import NodeState
from kubelet_plugin.telemetry import Telemetry
from kubelet_plugin.turns import Turns

log = structlog.get_logger(__name__)

INTERVAL_S = 600.0
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

    async def agree_that_gone(self, claim: ClaimRef) -> bool:
        """Whether it is sure that the claim has nothing on this node any more. Raises DraError where somebody does not answer.

        The API server is asked again only when its answer can settle the matter.
        """
        since = self._gone_since.get(claim.uid)
        if since is not None:
            if self.clock.monotonic() - since < CONFIRM_S:
                return False
            if (claim.namespace, claim.name) in await self._in_use():
                return False
        if not await self._is_gone(claim):
            self._gone_since.pop(claim.uid, None)
            return False
        if since is None:
            self._gone_since[claim.uid] = self.clock.monotonic()
            return False
        self._gone_since.pop(claim.uid, None)
        return True

    async def _is_gone(self, claim: ClaimRef) -> bool:
        api = await self._api()
        try:
            answer = await api.get(RESOURCE_CLAIM, claim.name, namespace=claim.namespace)
        except NotFound:
            return True
        found = allocated_claim_from_json(answer)
        return found.ref.uid != claim.uid or not results_of_node(found, self._node)


class Reconciler:
    """Releases what the witnesses agree is gone: every ten minutes, and at once where a prepare waits for it."""

    def __init__(
        self,
        state: NodeState,
        turns: Turns,
        executor: Executor,
        witnesses: Witnesses,
        telemetry: Telemetry,
    ) -> None:
        self._state = state
        self._turns = turns
        self._executor = executor
        self._witnesses = witnesses
        self._telemetry = telemetry
        self._clock = witnesses.clock
        self._suspects: set[str] = set()
        self._due = asyncio.Event()

    def suspect(self, uid: str) -> None:
        """Somebody waits for this claim to go: see soon whether it is gone already."""
        self._suspects.add(uid)
        self._due.set()

    async def run(self) -> None:
        """Look at all claims at once and then at intervals, at suspects when there are some."""
        all_due_at = self._clock.monotonic()
        while True:
            now = self._clock.monotonic()
            uids = frozenset(self._suspects) | self._witnesses.doubts
            if now >= all_due_at:
                uids = frozenset(self._state.records)
                jitter = random.uniform(0.9, 1.1)  # noqa: S311 (no secret: it keeps nodes apart)
                all_due_at = now + INTERVAL_S * jitter
            self._suspects.clear()
            await self.look(uids)
            await self._pause(all_due_at)

    async def look(self, uids: Collection[str]) -> None:
        """Release those of these claims that are surely gone; an API server that is away is asked once, not for each."""
        self._witnesses.forget_all_but(self._state.records.keys())
        for uid in sorted(uids):
            record = self._state.records.get(uid)
            if record is None or record.preparation is None or record.releasing:
                continue
            with bound_contextvars(claim=str(record.claim), claim_uid=uid):
                try:
                    if await self._witnesses.agree_that_gone(record.claim):
                        await asyncio.shield(self._release(record))  # begun, it goes to its end
                except DraError as error:
                    log.warning("it is not known whether a claim is still there", error=str(error))
                    if isinstance(error, Unavailable):
                        return

    async def _release(self, seen: ClaimRecord) -> None:
        """Unless it was released, or even prepared anew, since the witnesses were asked."""
        uid = seen.claim.uid
        async with self._turns.claim(uid):
            if self._state.records.get(uid) != seen:
                return
            async with self._turns.gpus(seen.changed_gpus):
                await self._executor.release(uid)
            log.warning(
                "released what a claim held that is gone",
                devices=[grant.device for grant in seen.grants],
            )
            self._telemetry.metrics.recovery("claim_released")

    async def _pause(self, all_due_at: float) -> None:
        """Until somebody is suspected, or else for the interval; a first answer is confirmed sooner."""
        left_s = max(0.0, all_due_at - self._clock.monotonic())
        pause_s = min(left_s, CONFIRM_S) if self._witnesses.doubts else left_s
        sleeping = asyncio.ensure_future(self._clock.sleep(pause_s))
        due = asyncio.ensure_future(self._due.wait())
        try:
            await asyncio.wait({sleeping, due}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            due.cancel()
        self._due.clear()
