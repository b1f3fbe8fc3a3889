"""Says on the Node which GPUs somebody else has partitioned: what overlaps their partitions is not published."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from dra_driver.model.inventory import Inventory
from dra_driver.model.reasons import Reason
from dra_driver.rules.forms import Made, foreign_instances
from kubelet_plugin.node_object import NodeObject

log = structlog.get_logger(__name__)


class ForeignPartitions:
    """Tells each change once."""

    def __init__(self, node: NodeObject) -> None:
        self._node = node
        self._told: dict[str, tuple[str, ...]] = {}

    async def tell(self, inventories: Iterable[Inventory], made: frozenset[Made]) -> None:
        """An Event for each GPU that has other foreign partitions than when it was last asked; `made` are ours."""
        for gpu in (gpu for inventory in inventories for gpu in inventory.gpus):
            there = tuple(
                f"{one.profile} at {one.placement.start}" for one in foreign_instances(gpu, made)
            )
            if there and self._told.get(gpu.pci_address) != there:
                message = (
                    f"GPU {gpu.pci_address} was partitioned by somebody else: {', '.join(there)}; that is given out as it is, and "
                    "nothing that overlaps it is published. Destroy what nobody needs with the vendor's tool"
                )
                log.warning("a GPU was partitioned by somebody else", gpu=gpu.pci_address)
                await self._node.warn(Reason.FOREIGN_PARTITIONS, message)
            self._told[gpu.pci_address] = there
