"""What only one process of a node does: publishing, and releasing what is gone. It is the newest one that the kubelet knows."""

from __future__ import annotations

import asyncio
from collections import Counter

import structlog

from dra_driver.kube.watch import Cache, Scope
from dra_driver.model.errors import KubeError
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import KubeApi, SystemClock, beat
from kubelet_plugin.instances import Instance
from kubelet_plugin.node import Node
from kubelet_plugin.publisher import Publisher
from kubelet_plugin.targets import PublishPolicy
from kubelet_plugin.telemetry import Telemetry

log = structlog.get_logger(__name__)

HANDOVER_S = 6.0
"""How soon an older process notices that a newer one has taken over, or is gone."""
WITHDRAW_S = 7.0
"""The chart gives a pod ten seconds more than stopTimeoutS; clients that do not hang up take one of them."""


class Duties:
    """Done while this process leads, and laid down while another one does."""

    def __init__(
        self,
        instance: Instance,
        node: Node,
        api: KubeApi,
        telemetry: Telemetry,
        policy: PublishPolicy,
    ) -> None:
        self._instance = instance
        self._node = node
        self._clock = SystemClock()
        self._publisher = Publisher(api, node.state, policy, telemetry, self._clock)
        ours = {"fieldSelector": f"spec.nodeName={node.state.node},spec.driver={DRIVER_NAME}"}
        scope = Scope(kind=RESOURCE_SLICE, selectors=ours)
        self._slices = Cache(api, scope, on_change=lambda _: self._notice())

    @property
    def published(self) -> bool:
        """Whether the slices were what they should be at the last look."""
        return self._publisher.published.is_set()

    @property
    def devices(self) -> Counter[str]:
        """How many devices of each pool the API server has."""
        found: Counter[str] = Counter()
        for item in self._slices.objects.values():
            found[item["spec"]["pool"]["name"]] += len(item["spec"].get("devices", ()))
        return found

    def trigger(self) -> None:
        """The slices may not be what they should be any more."""
        self._publisher.trigger()

    async def run(self) -> None:
        """Do them whenever this process leads, until cancelled."""
        while True:
            if self._instance.leads():
                await self._lead()
            await beat(self._clock, HANDOVER_S)

    async def withdraw_if_drained(self) -> None:
        """A drained node's slices go with its last process; best effort, as the kubelet wipes them half a minute later."""
        if not self._instance.alone():
            return
        try:
            async with asyncio.timeout(WITHDRAW_S):
                await self._publisher.withdraw_if_drained()
        except (KubeError, TimeoutError) as error:
            log.warning("the slices of the drained node stay for now", error=str(error))

    def _notice(self) -> None:
        """Somebody wrote our slices, or may have. What a newer process writes is right, also where this one has not laid down its duties yet."""
        if self._instance.leads():
            self._publisher.trigger()

    async def _lead(self) -> None:
        log.info("this process publishes and reconciles")
        async with asyncio.TaskGroup() as tasks:
            duties = [
                tasks.create_task(duty.run())
                for duty in (
                    self._slices,
                    self._publisher,
                    self._node.reconciler,
                    self._node.orphans,
                )
            ]
            while self._instance.leads():
                await beat(self._clock, HANDOVER_S)
            for duty in duties:
                duty.cancel()
        log.info("a newer process publishes and reconciles")
