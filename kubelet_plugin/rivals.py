"""Keeps GPUs that somebody else on this node gives out, too, from being published (see `rules.coexistence`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import structlog

from dra_driver.kube.codec import slice_from_json
from dra_driver.model.errors import DraError
from dra_driver.model.inventory import Inventory
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.model.names import DRIVER_NAME
from dra_driver.model.reasons import Reason
from dra_driver.model.slices import ResourceSlice
from dra_driver.ports import Clock, JsonObject, KubeApi
from dra_driver.rules.coexistence import offered_elsewhere, without
from kubelet_plugin.node_object import NodeObject

log = structlog.get_logger(__name__)

LOOK_S = 300.0


class Rivals:
    """Looks at the Node and at other drivers' slices of it when asked, at most every five minutes."""

    def __init__(self, api: KubeApi, node: NodeObject, clock: Clock) -> None:
        self._api = api
        self._node = node
        self._clock = clock
        self._next_at = clock.monotonic()
        self._allocatable: Mapping[str, str] = {}
        self._labels: Mapping[str, str] = {}
        self._others: tuple[ResourceSlice, ...] = ()
        self._told: dict[str, str] = {}

    async def left(self, inventories: Iterable[Inventory]) -> list[Inventory]:
        """What is ours alone; an Event on the Node tells what is not."""
        if self._clock.monotonic() >= self._next_at:
            await self._look()
        left: list[Inventory] = []
        offered: dict[str, str] = {}
        for inventory in inventories:
            elsewhere = offered_elsewhere(inventory, self._allocatable, self._labels, self._others)
            left.append(without(inventory, elsewhere))
            offered |= elsewhere
        await self._tell(offered)
        return left

    async def _look(self) -> None:
        node = await self._node.read()
        selector = {"fieldSelector": f"spec.nodeName={self._node.name}"}
        listing = await self._api.list(RESOURCE_SLICE, selectors=selector)
        self._allocatable = node.get("status", {}).get("allocatable", {})
        self._labels = node.get("metadata", {}).get("labels", {})
        self._others = tuple(_others(listing.items))
        self._next_at = self._clock.monotonic() + LOOK_S

    async def _tell(self, offered: dict[str, str]) -> None:
        """Each change once."""
        for who in sorted(set(offered.values())):
            gpus = sorted(gpu for gpu, other in offered.items() if other == who)
            if any(self._told.get(gpu) != who for gpu in gpus):
                message = (
                    f"not published: GPU {', '.join(gpus)}; {who}; let one driver have it, "
                    "or set coexistence to ignore"
                )
                log.warning("another driver offers the same GPUs", gpus=gpus, other=who)
                await self._node.warn(Reason.ANOTHER_DRIVER_OFFERS, message)
        self._told = offered


def _others(items: Iterable[JsonObject]) -> Iterator[ResourceSlice]:
    for item in items:
        if item.get("spec", {}).get("driver") == DRIVER_NAME:
            continue
        try:
            yield slice_from_json(item)
        except DraError as error:
            log.warning("another driver's slice cannot be read", error=str(error))
