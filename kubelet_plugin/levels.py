"""What the node holds and offers now, for a scrape of its metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from dra_driver.model.health import Cause
from dra_driver.model.names import gpu_name
from kubelet_plugin import health_service
from kubelet_plugin.health_service import HealthBoard
from kubelet_plugin.metric_families import Health
from kubelet_plugin.metrics import Levels, claims_by_state, devices_by_pool
from kubelet_plugin.state import NodeState

_WORDS: Mapping[health_service.Health, Health] = {
    health_service.Health.HEALTHY: "healthy",
    health_service.Health.UNHEALTHY: "unhealthy",
    health_service.Health.UNKNOWN: "unknown",
}


def levels(
    state: NodeState, board: HealthBoard, published: Mapping[str, int], *, damaged: int
) -> Levels:
    """`published`: devices in the slices that the API server has, by pool; `damaged`: claims whose records are."""
    records = state.records.values()
    return Levels(
        held_claims={**claims_by_state(records), "damaged": damaged},
        prepared_devices=devices_by_pool(records),
        published_devices=published,
        device_health=Counter(
            (pool, _WORDS[device.health]) for (pool, _), device in board.current.items()
        ),
        gpu_conditions=_gpu_conditions(state),
    )


def _gpu_conditions(state: NodeState) -> Mapping[tuple[str, Cause], int]:
    """By the names that the devices' figures have; of a GPU that does not answer, or never told, nothing is said."""
    answering = (gpu for inventory in state.inventories.values() for gpu in inventory.gpus)
    told = [gpu.pci_address for gpu in answering if gpu.pci_address in state.conditions]
    worst = {(gpu_name(address), cause): 0 for address in told for cause in Cause}
    for address in told:
        for one in state.conditions[address]:
            key = gpu_name(address), one.ailment.cause
            worst[key] = max(worst[key], 1 if one.is_usable else 2)
    return worst
