"""How the node's devices are, told from what the last look at the hardware found."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

from dra_driver.model.device import Gpu
from dra_driver.model.health import Condition
from dra_driver.model.inventory import Inventory
from dra_driver.rules.forms import all_forms
from dra_driver.rules.health import afflicted
from kubelet_plugin.health_notices import described
from kubelet_plugin.health_service import Device, DeviceHealth, DeviceHealths, Health, HealthBoard
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
        self._told: tuple[object, ...] = ()

    def refresh(self, pending: Collection[str] = ()) -> None:
        """The state says what was seen just now, and of what nothing could be seen; but not of GPUs still `pending`. Told anew only where it says something else."""
        state = self._state
        telling = dict(state.inventories), dict(state.conditions), dict(state.records)
        current = self._board.current if telling == self._told else self._found()
        self._told = telling
        self._board.update(current, time.time(), self._devices_of(pending))

    def _found(self) -> DeviceHealths:
        found: dict[tuple[str, str], DeviceHealth] = {}
        for pool, inventory in self._state.inventories.items():
            for address, health in _by_gpu(inventory).items():
                sick = self._sick(inventory, address)
                names = self._devices(inventory, address)
                found |= {(pool, name): sick.get(name, health) for name in names}
        return found

    def _devices_of(self, gpus: Collection[str]) -> list[Device]:
        return [
            (pool, name)
            for pool, inventory in self._state.inventories.items()
            for address in inventory.addresses
            if address in gpus
            for name in self._devices(inventory, address)
        ]

    def _sick(self, inventory: Inventory, address: str) -> Mapping[str, DeviceHealth]:
        gpu, conditions = inventory.gpu(address), self._state.conditions.get(address)
        if gpu is None or not conditions:
            return {}
        by_device = afflicted(gpu, conditions)
        return {name: _of_conditions(address, those) for name, those in by_device.items()}

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


def _of_conditions(address: str, conditions: Sequence[Condition]) -> DeviceHealth:
    is_usable = all(one.is_usable for one in conditions)
    return DeviceHealth(
        health=Health.HEALTHY if is_usable else Health.UNHEALTHY,
        message="; ".join(f"GPU {address}{described(one)}" for one in conditions),
    )


def _by_gpu(inventory: Inventory) -> dict[str, DeviceHealth]:
    healthy = DeviceHealth(health=Health.HEALTHY)
    return {gpu.pci_address: healthy for gpu in inventory.gpus} | {
        fault.pci_address: DeviceHealth(
            health=Health.UNKNOWN if fault.unseen else Health.UNHEALTHY,
            message=fault.message,
        )
        for fault in inventory.faults
    }
