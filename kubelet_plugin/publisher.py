"""Keeps the node's ResourceSlices what they should be: level-triggered, so one missed event costs nothing.

An API server whose feature gate is off drops fields in silence, and a partition without its counters would be given out twice;
so the first write that comes back short withdraws its pool and publishes without partitions.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence

import structlog

from dra_driver.kube.backoff import Backoff
from dra_driver.model.errors import DraError, FieldsDropped, KubeError, SliceNameTaken, Unavailable
from dra_driver.model.reasons import Reason
from dra_driver.ports import Clock, KubeApi
from dra_driver.rules.draining import DRAIN_ANNOTATION
from dra_driver.rules.pool_layout import DesiredPool
from dra_driver.rules.publish import LIMITED_ANNOTATION, PublishMode
from kubelet_plugin.capability import Capability, decide
from kubelet_plugin.drain_notice import DrainNotice
from kubelet_plugin.health_notices import HealthNotices
from kubelet_plugin.node_object import NodeObject
from kubelet_plugin.pacing import Pacing
from kubelet_plugin.pool_writer import PoolWriter
from kubelet_plugin.slice_store import SliceStore, StoredSlice
from kubelet_plugin.state import NodeState
from kubelet_plugin.targets import PublishPolicy, Targets
from kubelet_plugin.telemetry import Telemetry

log = structlog.get_logger(__name__)

SETTLE_S = 0.2
RETRY_S = 2.0
RETRY_MAX_S = 60.0
AWAY_MAX_S = 20.0
"""An API server that was away has the slices again within half a minute of its return."""
RELIST_S = (300.0, 600.0)

_CHOSEN = {
    PublishMode.FULL: Capability(mode=PublishMode.FULL),
    PublishMode.PLAIN: Capability(mode=PublishMode.PLAIN, why="the setting publishMode says plain"),
}


class Publisher:
    """Owns all slices of our driver on this node. `published` is set once they are what they should be."""

    def __init__(
        self,
        api: KubeApi,
        state: NodeState,
        policy: PublishPolicy,
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        self._api = api
        self._state = state
        self._clock = clock
        self._rng = random.Random()  # noqa: S311 -- jitter, not secrets
        self._node = NodeObject(api, state.node, telemetry.recorder)
        self._store = SliceStore(api, self._node, telemetry.metrics)
        self._drain = DrainNotice(self._node)
        self._health = HealthNotices(self._node)
        self._pacing = Pacing(clock, self._rng)
        self._writer = PoolWriter(self._store, self._pacing)
        self._targets = Targets(api, self._node, state, policy, clock)
        self._capability = _CHOSEN.get(policy.mode) if policy.mode else None
        self._withdrawn = False
        self._turn = asyncio.Lock()
        self._due = asyncio.Event()
        self.published = asyncio.Event()
        state.on_inventory(self.trigger)

    def trigger(self) -> None:
        """Compare again soon: something may have changed."""
        self._due.set()

    async def withdraw_if_drained(self) -> None:
        """Delete all our slices if the node is drained; for a plugin that is being stopped.

        A pod that was deleted by force is gone from the API before the kubelet gives back its devices, so that is waited for.
        """
        if not self._drain.since:
            return
        while self._state.records:
            await self._state.wait_for_release()
        async with self._turn:
            self._withdrawn = True
            log.info("the node is drained: withdrawing its slices")
            for item in (await self._store.read()).values():
                await self._writer.delete(item)

    async def run(self) -> None:
        """Reconcile after every trigger, for ever; failures are tried again with back-off."""
        backoff = Backoff(first_s=RETRY_S, most_s=RETRY_MAX_S, rng=self._rng)
        while True:
            self._due.clear()
            try:
                pause_s = await self.reconcile()
            except DraError as error:
                self.published.clear()
                wait_s = backoff.pause_s()
                if isinstance(error, Unavailable):
                    wait_s = min(wait_s, AWAY_MAX_S)
                log.warning(
                    "cannot publish; trying again", error=str(error), wait_s=round(wait_s, 1)
                )
                await self._clock.sleep(wait_s)
            else:
                backoff.reset()
                await self._clock.sleep(SETTLE_S)
                await self._triggered_within(pause_s - SETTLE_S)

    async def reconcile(self) -> float:
        """Bring all our slices of this node to what is desired now; nothing is written where nothing differs.

        Returns the seconds after which to look again even if nothing triggers it.
        """
        async with self._turn:
            if self._withdrawn:
                return RELIST_S[1]
            capability = await self._decided_capability()
            try:
                return await self._reconcile(capability)
            except FieldsDropped as dropped:
                if capability.mode is PublishMode.PLAIN:
                    raise KubeError(f"{dropped}; no simpler form is left to publish") from dropped
                self._capability = await self._limited(dropped.reason, str(dropped))
                self._targets.forget()
                return 0.0

    async def _reconcile(self, capability: Capability) -> float:
        stored = await self._store.read()
        self._pacing.notice(stored)
        await self._drain.look(stored.values())
        await self._health.tell(self._state.conditions)
        pools = await self._targets.pools(stored, capability.mode, self._drain.since)
        await self._delete_strangers(pools, stored)
        annotations = self._annotations(capability)
        waits: list[float] = []
        failures: list[KubeError] = []
        for pool in pools:
            try:
                waits.append(await self._writer.write(pool, stored, annotations))
            except SliceNameTaken as taken:
                await self._node.warn(taken.reason, str(taken))
                failures.append(taken)
        if failures:
            raise failures[0]
        waits = [wait_s for wait_s in waits if wait_s > 0]
        if waits:
            self.published.clear()
        elif not self._due.is_set():
            self.published.set()
        return min([*waits, self._targets.pause_s, self._rng.uniform(*RELIST_S)])

    async def _delete_strangers(
        self, pools: Sequence[DesiredPool], stored: Mapping[str, StoredSlice]
    ) -> None:
        """What is of no pool that a node of ours can have, or cannot be read and will not be written anew."""
        wanted = {item.name for pool in pools for item in pool.slices}
        for name, item in stored.items():
            if name not in wanted and not self._targets.is_ours(item):
                await self._writer.delete(item)

    def _annotations(self, capability: Capability) -> dict[str, str]:
        """What holds for the whole node: slices have no status that could say it."""
        drain = {DRAIN_ANNOTATION: self._drain.since} if self._drain.since else {}
        return drain | ({LIMITED_ANNOTATION: capability.why} if capability.why else {})

    async def _decided_capability(self) -> Capability:
        if self._capability is None:
            decided = await decide(self._api, self._state.node)
            if decided.why:
                decided = await self._limited(Reason.PARTITIONS_NOT_PUBLISHED, decided.why)
            self._capability = decided
        return self._capability

    async def _limited(self, reason: Reason, why: str) -> Capability:
        """PLAIN, after the Node's Event has said why."""
        log.warning("partitions are not published", why=why)
        await self._node.warn(reason, f"partitions are not published: {why}")
        return Capability(mode=PublishMode.PLAIN, why=why)

    async def _triggered_within(self, seconds: float) -> None:
        waits = (
            asyncio.ensure_future(self._due.wait()),
            asyncio.ensure_future(self._clock.sleep(max(0.0, seconds))),
        )
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
