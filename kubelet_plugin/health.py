"""How the node's devices are, told from what the last look at the hardware found."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from dra_driver.model.device import Gpu
from dra_driver.model.health import Condition
from dra_driver.model.inventory import Inventory
from dra_driver.rules.forms import all_forms
from dra_driver.rules.health import afflicted
from kubelet_plugin.health_notices import described
from kubelet_plugin.health_service import DeviceHealth, Health, HealthBoard
from kubelet_plugin.state import NodeState


class HealthReport:
    """Keeps the board true: a GPU that does not answer makes all of its devices unhealthy, and says why.

    Of one that nobody could look at nothing is known: its devices are neither healthy nor unhealthy. What a GPU that answers suffers
    from makes those devices unhealthy that get no new claims for it; the others are healthy, and say what is wrong.
    """

    def __init__(self, state: NodeState, board: HealthBoard) -> None:
        self._state = state
        self._board = board
        self._seen: dict[str, tuple[Gpu, tuple[str, ...]]] = {}

    def refresh(self) -> None:
        """The state says what was seen just now, and of what nothing could be seen."""
        now = time.time()
        found: dict[tuple[str, str], DeviceHealth] = {}
        for pool, inventory in self._state.inventories.items():
            for address, health in _by_gpu(inventory, now).items():
                sick = self._sick(inventory, address, now)
                names = self._devices(inventory, address)
                found |= {(pool, name): sick.get(name, health) for name in names}
        self._board.update(found)

    def _sick(self, inventory: Inventory, address: str, now: float) -> Mapping[str, DeviceHealth]:
        gpu, conditions = inventory.gpu(address), self._state.conditions.get(address)
        if gpu is None or not conditions:
            return {}
        by_device = afflicted(gpu, conditions)
        return {name: _of_conditions(address, those, now) for name, those in by_device.items()}

    def _devices(self, inventory: Inventory, address: str) -> tuple[str, ...]:
        """The GPU's devices; those it had when it last answered, and those that claims hold, if it does not."""
        seen, names = self._seen.get(address, (None, ()))
        gpu = inventory.gpu(address) or seen
        if gpu is not None and gpu is not seen:
            names = tuple(form.name for form in all_forms(gpu))
            self._seen[address] = gpu, names
        held = (
            grant.device
            for record in self._state.records.values()
            for grant in record.grants
            if grant.gpu == address
        )
        return tuple({*names, *held})


def _of_conditions(address: str, conditions: Sequence[Condition], now: float) -> DeviceHealth:
    is_usable = all(one.is_usable for one in conditions)
    return DeviceHealth(
        health=Health.HEALTHY if is_usable else Health.UNHEALTHY,
        checked_at=now,
        message="; ".join(f"GPU {address}{described(one)}" for one in conditions),
    )


def _by_gpu(inventory: Inventory, now: float) -> dict[str, DeviceHealth]:
    healthy = DeviceHealth(health=Health.HEALTHY, checked_at=now)
    return {gpu.pci_address: healthy for gpu in inventory.gpus} | {
        fault.pci_address: DeviceHealth(
            health=Health.UNKNOWN if fault.unseen else Health.UNHEALTHY,
            checked_at=now,
            message=fault.message,
        )
        for fault in inventory.faults
    }
