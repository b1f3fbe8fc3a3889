"""What a node should publish now, all things considered: hardware, other drivers, what is leaving, a drain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from dra_driver.model.device import Vendor
from dra_driver.model.names import pool_name
from dra_driver.ports import Clock, KubeApi
from dra_driver.rules.draining import drained
from dra_driver.rules.forms import made_instances
from dra_driver.rules.health import without_unusable
from dra_driver.rules.pool_layout import DEVICES_PER_SLICE, DesiredPool
from dra_driver.rules.publish import PublishMode, desired_pool
from kubelet_plugin.foreign_partitions import ForeignPartitions
from kubelet_plugin.node_object import NodeObject
from kubelet_plugin.rivals import Rivals
from kubelet_plugin.slice_store import StoredSlice
from kubelet_plugin.state import NodeState
from kubelet_plugin.withdrawing import Withdrawing

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishPolicy:
    """`mode` None lets the API server's version and a dry run decide.

    `pools` are those that this node's backends fill: what is published of them stays while their hardware does not answer.
    `ignores_rivals`: GPUs that another driver offers are published all the same.
    """

    mode: PublishMode | None = None
    devices_per_gpu: int = DEVICES_PER_SLICE
    pools: frozenset[str] = frozenset()
    ignores_rivals: bool = False


class Targets:
    """The pools to publish, to be asked anew in each round."""

    def __init__(
        self,
        api: KubeApi,
        node: NodeObject,
        state: NodeState,
        policy: PublishPolicy,
        clock: Clock,
    ) -> None:
        self._state = state
        self._policy = policy
        self._names = frozenset(pool_name(state.node, vendor) for vendor in Vendor)
        self._rivals = None if policy.ignores_rivals else Rivals(api, node, clock)
        self._foreign = ForeignPartitions(node)
        self._withdrawing = Withdrawing(api, state, clock)
        self._left_out: dict[str, tuple[str, ...]] = {}

    @property
    def pause_s(self) -> float:
        """Seconds after which the answer may be another one, though nothing happened."""
        return self._withdrawing.pause_s

    def forget(self) -> None:
        """All that was offered is gone, for a reason that does not wait."""
        self._withdrawing.forget()

    def is_ours(self, item: StoredSlice) -> bool:
        """Whether the slice is of a pool that this node can have."""
        return item.value is not None and item.value.pool.name in self._names

    async def pools(
        self, stored: Mapping[str, StoredSlice], mode: PublishMode, draining_since: str
    ) -> list[DesiredPool]:
        """All pools of this node; one without slices is to be deleted."""
        pools = await self._desired(mode)
        if draining_since and mode is PublishMode.PLAIN:
            return [drained(pool, draining_since, mode) for pool in pools]
        pools = await self._withdrawing.pools([*pools, *self._abandoned(stored)], stored, mode)
        return [drained(one, draining_since, mode) for one in pools] if draining_since else pools

    async def _desired(self, mode: PublishMode) -> list[DesiredPool]:
        made = made_instances(self._state.records.values())
        budget = self._policy.devices_per_gpu
        inventories = list(self._state.inventories.values())
        if self._rivals is not None:
            inventories = await self._rivals.left(inventories)
        if mode is PublishMode.FULL:
            await self._foreign.tell(inventories, made)
        pools = [
            desired_pool(self._state.node, inventory, made, mode, budget)
            for inventory in inventories
        ]
        if mode is PublishMode.PLAIN:
            pools = [without_unusable(one, self._state.afflicted(one.name)) for one in pools]
        for pool in pools:
            if self._left_out.get(pool.name, ()) != pool.left_out:
                self._left_out[pool.name] = pool.left_out
                log.warning(
                    "more partitions than the budget of devices allows",
                    left_out=pool.left_out,
                    budget=budget,
                )
        return pools

    def _abandoned(self, stored: Mapping[str, StoredSlice]) -> list[DesiredPool]:
        """Our stored pools that no backend fills any more: nothing of them is desired."""
        kept = self._policy.pools | self._state.inventories.keys()
        names = {item.value.pool.name for item in stored.values() if item.value}
        return [DesiredPool(name=name, slices=()) for name in sorted(names & self._names - kept)]
