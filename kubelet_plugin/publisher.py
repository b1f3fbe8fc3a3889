"""Keeps the node's ResourceSlices what they should be: level-triggered, so one missed event costs nothing.

Every write is compared with what was stored. An API server whose feature gate is off drops fields in silence, and a partition
without its counters would be given out twice; so the first difference withdraws the pool and publishes without partitions.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog

from dra_driver.kube.codec import slice_from_json, slice_to_json
from dra_driver.model.errors import Conflict, DraError, KubeError, NotFound
from dra_driver.model.kinds import NODE, RESOURCE_SLICE
from dra_driver.model.names import DRIVER_NAME
from dra_driver.model.slices import ResourceSlice
from dra_driver.ports import Clock, JsonObject, KubeApi, Recorder
from dra_driver.rules.draining import DRAIN_ANNOTATION, drained
from dra_driver.rules.forms import made_instances
from dra_driver.rules.publish import (
    DEVICES_PER_SLICE,
    LIMITED_ANNOTATION,
    DesiredPool,
    PoolWrites,
    PublishMode,
    desired_pool,
    diff_pool,
    is_same,
)
from kubelet_plugin.probing import supported_mode
from kubelet_plugin.state import NodeState

log = structlog.get_logger(__name__)

SETTLE_S = 0.2
BACKOFF_MAX_S = 60.0


class FieldsDropped(DraError):
    """The API server stored less than it was sent: a feature gate is off."""

    reason = "FieldsDropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishPolicy:
    """`mode` None lets the API server's version and a dry run decide.

    `pools` are those that this node's backends fill: what is published of them stays while their hardware does not answer.
    """

    mode: PublishMode | None = None
    devices_per_gpu: int = DEVICES_PER_SLICE
    pools: frozenset[str] = frozenset()


class Publisher:
    """Owns all slices of our driver on this node."""

    def __init__(
        self,
        api: KubeApi,
        state: NodeState,
        policy: PublishPolicy,
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self._api = api
        self._state = state
        self._mode = policy.mode
        self._limits = "the setting publishMode says plain"
        self._devices_per_gpu = policy.devices_per_gpu
        self._pools = policy.pools
        self._clock = clock
        self._recorder = recorder
        self._draining_since = ""
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
        if not self._draining_since:
            return
        while self._state.records:
            await self._state.wait_for_release()
        async with self._turn:
            self._withdrawn = True
            log.info("the node is drained: withdrawing its slices")
            for _, raw in (await self._stored()).values():
                await self._delete(raw)

    async def run(self) -> None:
        """Reconcile after every trigger, for ever; failures are tried again with back-off."""
        self._due.set()
        failures = 0
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self.reconcile()
            except DraError as error:
                failures += 1
                wait_s = min(BACKOFF_MAX_S, 2.0**failures) * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
                log.warning(
                    "cannot publish; trying again", error=str(error), wait_s=round(wait_s, 1)
                )
                self._due.set()
                await self._clock.sleep(wait_s)
            else:
                failures = 0
                if not self._due.is_set():
                    self.published.set()
                await self._clock.sleep(SETTLE_S)

    async def reconcile(self) -> None:
        """Bring all our slices of this node to what is desired now; nothing is written where nothing differs."""
        async with self._turn:
            if not self._withdrawn:
                await self._reconcile_now()

    async def _reconcile_now(self) -> None:
        mode = await self._decided_mode()
        try:
            await self._reconcile(mode)
        except FieldsDropped as dropped:
            if mode is PublishMode.PLAIN:
                raise KubeError(f"{dropped}; no simpler form is left to publish") from dropped
            log.warning("publishing without partitions", why=str(dropped))
            self._recorder.event(
                await self._node_ref(), level="Warning", reason=dropped.reason, message=str(dropped)
            )
            self._mode, self._limits = PublishMode.PLAIN, str(dropped)
            self._due.set()

    async def _reconcile(self, mode: PublishMode) -> None:
        stored = await self._stored()
        made = made_instances(self._state.records.values())
        pools = [
            desired_pool(self._state.node, inventory, made, mode, self._devices_per_gpu)
            for inventory in self._state.inventories.values()
        ]
        raw = {name: stored_raw for name, (_, stored_raw) in stored.items()}
        await self._notice_drain(raw.values())
        if self._draining_since:
            pools = [drained(pool, self._draining_since, mode) for pool in pools]
        wanted = {item.name for pool in pools for item in pool.slices}
        kept = self._pools | {pool.name for pool in pools}
        for name, (item, _) in stored.items():
            if name not in wanted and (item is None or item.pool.name not in kept):
                await self._delete(raw[name])
        readable = [item for item, _ in stored.values() if item is not None]
        for pool in pools:
            for name in pool.left_out:
                log.warning(
                    "more partitions than the budget of devices allows",
                    left_out=name,
                    budget=self._devices_per_gpu,
                )
            await self._write(pool, diff_pool(pool, readable), raw)

    async def _notice_drain(self, stored: Iterable[JsonObject]) -> None:
        """The annotation on any slice counts, so that its removal counts once it is complete; without slices, the Node's."""
        notes = [item["metadata"].get("annotations", {}).get(DRAIN_ANNOTATION) for item in stored]
        since = next(filter(None, notes), "") if notes else await self._drained_by_node()
        if since != self._draining_since:
            log.info("draining" if since else "no longer draining", since=since or None)
        self._draining_since = since

    async def _write(
        self, pool: DesiredPool, writes: PoolWrites, stored: Mapping[str, JsonObject]
    ) -> None:
        if not writes:
            return
        log.info(
            "writing slices",
            pool=pool.name,
            writes=len(writes.writes),
            deletes=len(writes.deletes),
        )
        for name in writes.deletes:
            await self._delete(stored[name])
        owner = await self._node_ref()
        for wanted in writes.writes:
            try:
                answer = await self._put(wanted, owner, stored.get(wanted.name))
            except (Conflict, NotFound):
                self._due.set()  # somebody else wrote meanwhile: look again
                return
            if not is_same(slice_from_json(answer), wanted):
                await self._withdraw(pool)
                raise FieldsDropped(
                    f"the API server stored slice {wanted.name} without some of its fields, so partitions cannot be told apart; "
                    "turn on the feature gates DRAPartitionableDevices and DRADeviceTaints"
                )

    async def _put(
        self, wanted: ResourceSlice, owner: JsonObject, stored: JsonObject | None
    ) -> JsonObject:
        body = slice_to_json(wanted)
        body["metadata"]["ownerReferences"] = [owner | {"controller": True}]
        body["metadata"]["annotations"] = self._annotations()
        if stored is None:
            return await self._api.create(RESOURCE_SLICE, body)
        body["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"]
        return await self._api.replace(RESOURCE_SLICE, body)

    def _annotations(self) -> JsonObject:
        """What holds for the whole node: slices have no status that could say it."""
        drain = {DRAIN_ANNOTATION: self._draining_since} if self._draining_since else {}
        limits = {LIMITED_ANNOTATION: self._limits} if self._mode is PublishMode.PLAIN else {}
        return drain | limits

    async def _withdraw(self, pool: DesiredPool) -> None:
        """Delete the pool, its last written slices included, so that nobody can use what is not whole."""
        for item, raw in (await self._stored()).values():
            if item is None or item.pool.name == pool.name:
                await self._delete(raw)

    async def _delete(self, raw: JsonObject) -> None:
        try:
            await self._api.delete(
                RESOURCE_SLICE,
                raw["metadata"]["name"],
                preconditions={"uid": raw["metadata"]["uid"]},
            )
        except (NotFound, Conflict):
            self._due.set()

    async def _stored(self) -> dict[str, tuple[ResourceSlice | None, JsonObject]]:
        """Our slices by name; None for one that cannot be read, which is then written anew."""
        listing = await self._api.list(
            RESOURCE_SLICE,
            selectors={
                "fieldSelector": f"spec.nodeName={self._state.node},spec.driver={DRIVER_NAME}"
            },
        )
        return {raw["metadata"]["name"]: (_readable(raw), raw) for raw in listing.items}

    async def _decided_mode(self) -> PublishMode:
        if self._mode is None:
            self._mode = await supported_mode(self._api, self._state.node)
            if self._mode is PublishMode.PLAIN:
                self._limits = (
                    "the API server does not keep their counters (DRAPartitionableDevices)"
                )
                self._recorder.event(
                    await self._node_ref(),
                    level="Warning",
                    reason="PartitionsNotPublished",
                    message=f"partitions are not published: {self._limits}",
                )
        return self._mode

    async def _drained_by_node(self) -> str:
        """Slices were wiped, or a drained plugin took them along when it stopped: the Node still knows."""
        if self._draining_since:
            return self._draining_since
        metadata = (await self._api.get(NODE, self._state.node))["metadata"]
        since: str = metadata.get("annotations", {}).get(DRAIN_ANNOTATION, "")
        return since

    async def _node_ref(self) -> JsonObject:
        """The Node as it is now: slices owned by a former Node of this name would be collected at once."""
        metadata = (await self._api.get(NODE, self._state.node))["metadata"]
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "name": metadata["name"],
            "uid": metadata["uid"],
        }


def _readable(raw: JsonObject) -> ResourceSlice | None:
    try:
        return slice_from_json(raw)
    except DraError as error:
        log.warning(
            "a stored slice cannot be read and is written anew",
            name=raw["metadata"]["name"],
            error=str(error),
        )
        return None
