"""Carries the withdrawing rule (`rules.withdrawal`) out: remembers what was offered, and asks who uses what is leaving."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dra_driver.model.slices import ResourceSlice
from dra_driver.ports import Clock, KubeApi
from dra_driver.rules.health import with_health_taints
from dra_driver.rules.pool_diff import diff_pool, with_known_times
from dra_driver.rules.pool_layout import DesiredPool
from dra_driver.rules.publish import PublishMode
from dra_driver.rules.usage import DeviceKey
from dra_driver.rules.withdrawal import Situation, Withdrawal, is_marked, withdraw
from kubelet_plugin.claim_looks import LOOK_S, ClaimLooks
from kubelet_plugin.slice_store import StoredSlice
from kubelet_plugin.state import NodeState


class Withdrawing:
    """What claims may have been given is, at first, what is stored; later what this process offered, even if it was wiped or changed.

    `pause_s` are the seconds after which to look again.
    """

    def __init__(self, api: KubeApi, state: NodeState, clock: Clock) -> None:
        self._state = state
        self._looks = ClaimLooks(api, state, clock)
        self._offered: dict[str, DesiredPool] = {}
        self.pause_s = math.inf

    def forget(self) -> None:
        """All that was offered is gone, for a reason that does not wait."""
        self._offered.clear()

    async def pools(
        self, desired: Sequence[DesiredPool], stored: Mapping[str, StoredSlice], mode: PublishMode
    ) -> list[DesiredPool]:
        """What to publish now. Where it cannot be known who uses what, PLAIN stays as it is: it could not taint what is leaving."""
        for pool in desired:
            self._learn(pool.name, stored)
        drafts = {pool.name: self._withdraw(pool, mode) for pool in desired}
        leaving = {(name, device) for name, one in drafts.items() for device in one.leaving}
        askable = leaving if mode is PublishMode.PLAIN else leaving & _marked(stored)
        for_s = 0.0 if mode is PublishMode.PLAIN else LOOK_S
        unused = await self._looks.unused(frozenset(askable), for_s=for_s)
        self.pause_s = self._looks.pause_s if askable else LOOK_S if leaving else math.inf
        targets: list[DesiredPool] = []
        for pool in desired:
            known = self._offered[pool.name]
            if drafts[pool.name].leaving and mode is PublishMode.PLAIN and unused is None:
                targets.append(known)
                continue
            timed = (*known.slices, *_slices_of(pool.name, stored))
            target = self._withdraw(pool, mode, unused).pool
            if mode is not PublishMode.PLAIN:
                target = with_health_taints(target, self._state.afflicted(pool.name))
            target = with_known_times(target, timed)
            self._offered[pool.name] = target
            targets.append(target)
        return targets

    def _withdraw(
        self, pool: DesiredPool, mode: PublishMode, unused: frozenset[DeviceKey] | None = None
    ) -> Withdrawal:
        inventory = self._state.inventories.get(pool.name)
        situation = Situation(
            node=self._state.node,
            mode=mode,
            faults=inventory.faults if inventory else (),
            unused=frozenset(device for name, device in unused or () if name == pool.name),
        )
        return withdraw(pool, self._offered[pool.name].slices, situation)

    def _learn(self, pool: str, stored: Mapping[str, StoredSlice]) -> None:
        """Take over what is stored where nothing is known, and the times that the API server gave to taints."""
        slices = tuple(_slices_of(pool, stored))
        known = self._offered.get(pool)
        if known is None or not diff_pool(known, slices):
            self._offered[pool] = DesiredPool(name=pool, slices=slices)


def _slices_of(pool: str, stored: Mapping[str, StoredSlice]) -> list[ResourceSlice]:
    return [item.value for item in stored.values() if item.value and item.value.pool.name == pool]


def _marked(stored: Mapping[str, StoredSlice]) -> set[DeviceKey]:
    return {
        (item.value.pool.name, device.name)
        for item in stored.values()
        if item.value
        for device in item.value.devices
        if is_marked(device)
    }
