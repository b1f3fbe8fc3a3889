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
from dra_driver.model.errors import DraError, NotFound
from dra_driver.model.kinds import RESOURCE_CLAIM
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

    async def agree_that_gone(self, claim: ClaimRef) -> bool:
        """Whether it is sure that the claim has nothing on this node any more. Raises DraError where somebody does not answer."""
        if not await self._is_gone(claim):
            self._gone_since.pop(claim.uid, None)
            return False
        since = self._gone_since.setdefault(claim.uid, self.clock.monotonic())
        if self.clock.monotonic() - since < CONFIRM_S:
            return False
        if (claim.namespace, claim.name) in await self._in_use():
            return False
        del self._gone_since[claim.uid]
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
        await self.look(frozenset(self._state.records))
        while True:
            await self._pause()
            suspects = frozenset(self._suspects) | self._witnesses.doubts
            self._suspects.clear()
            await self.look(suspects or frozenset(self._state.records))

    async def look(self, uids: Collection[str]) -> None:
        """Release those of these claims that are surely gone."""
        for uid in sorted(uids):
            record = self._state.records.get(uid)
            if record is None or record.preparation is None or record.releasing:
                continue
            with bound_contextvars(claim=str(record.claim), claim_uid=uid):
                try:
                    if await self._witnesses.agree_that_gone(record.claim):
                        await self._release(uid)
                except DraError as error:
                    log.warning("it is not known whether a claim is still there", error=str(error))

    async def _release(self, uid: str) -> None:
        async with self._turns.claim(uid):
            record = self._state.records.get(uid)
            if record is not None:
                async with self._turns.gpus(record.changed_gpus):
                    await self._executor.release(uid)
                log.warning(
                    "released what a claim held that is gone",
                    devices=[grant.device for grant in record.grants],
                )
                self._telemetry.metrics.recovery("claim_released")

    async def _pause(self) -> None:
        """Until somebody is suspected, or else for the interval; a first answer is confirmed sooner."""
        jitter = random.uniform(0.9, 1.1)  # noqa: S311 (no secret: it keeps nodes apart)
        pause_s = CONFIRM_S if self._witnesses.doubts else INTERVAL_S * jitter
        sleeping = asyncio.ensure_future(self._clock.sleep(pause_s))
        due = asyncio.ensure_future(self._due.wait())
        try:
            await asyncio.wait({sleeping, due}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            due.cancel()
        self._due.clear()
