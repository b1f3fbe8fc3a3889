"""The forms in which a GPU can be given out: whole, as each legal partition, to a virtual machine, and as a monitor's view.

One enumeration serves everybody: the publisher renders forms as devices, the planner finds a claim's device among them.
A form's name is the device's name; nobody takes names apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import TypeAlias

from dra_driver.model.device import CreateStage, Gpu, Instance, PartitionProfile, Placement
from dra_driver.model.inventory import Inventory
from dra_driver.model.names import (
    gpu_name,
    is_device_of,
    monitor_name,
    partition_name,
    passthrough_name,
)
from dra_driver.model.record import ClaimRecord

Made: TypeAlias = tuple[str, str, Placement]
"""GPU, profile and placement of an instance."""


class Sharing(StrEnum):
    """How a device is shared; also the value of the attribute `sharing`."""

    EXCLUSIVE = "exclusive"
    MEMORY = "memory"
    MONITOR = "monitor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to give out (a part of) a GPU. `profile` and `placement` are None unless it is a partition.

    `foreign`: it is there already, somebody else made it, and it outlives every claim.
    `passthrough`: all of it, for a virtual machine.
    """

    name: str
    gpu: Gpu
    sharing: Sharing = Sharing.EXCLUSIVE
    profile: PartitionProfile | None = None
    placement: Placement | None = None
    foreign: bool = False
    passthrough: bool = False

    @property
    def mode(self) -> str | None:
        """The mode in which the GPU must be, None where that does not matter."""
        if self.gpu.partitioning is None or self.sharing is Sharing.MONITOR:
            return None
        return self.profile.mode if self.profile else self.gpu.partitioning.whole_mode

    @property
    def positions(self) -> frozenset[int]:
        """The positions of the GPU that this form occupies: all of them for a whole GPU, none for a monitor."""
        if self.sharing is Sharing.MONITOR or self.gpu.partitioning is None:
            return frozenset()
        if self.placement is None:
            return frozenset(range(self.gpu.partitioning.positions))
        return covered(self.placement)

    @property
    def consumption(self) -> Mapping[str, int]:
        """What it takes of the GPU's counters, positions apart; for a part of a partition, with all other parts."""
        if self.sharing is Sharing.MONITOR:
            return {}
        return self.profile.consumes if self.profile else counters_of(self.gpu)


def covered(placement: Placement) -> frozenset[int]:
    """The positions of a placement."""
    return frozenset(range(placement.start, placement.start + placement.size))


def counters_of(gpu: Gpu) -> Mapping[str, int]:
    """What the GPU's forms share, positions apart: nothing where it has but one form that takes any of it."""
    if gpu.partitioning is not None:
        return gpu.partitioning.counters
    return {} if gpu.passthrough is None else {"gpu": 1}


def all_forms(gpu: Gpu) -> tuple[Form, ...]:
    """Everything the GPU could ever be, in the order in which it is published.

    Smallest first, then descending placement start, the whole GPU after its partitions: the scheduler takes the first
    device that fits, so this order packs. A virtual machine's comes then, and the monitor last.
    """
    partitions = sorted(_partitions(gpu), key=_packing_order)
    return (*partitions, _whole(gpu), *_passthrough(gpu), _monitor(gpu))


def gpu_of(inventory: Inventory, device: str) -> Gpu | None:
    """The GPU to which a device of that name belongs."""
    return next((gpu for gpu in inventory.gpus if is_device_of(gpu.pci_address, device)), None)


def find_form(inventory: Inventory, device: str) -> Form | None:
    """The form of that device name, or None where no GPU could be that."""
    gpu = gpu_of(inventory, device)
    if gpu is None:
        return None
    forms = chain((_whole(gpu), *_passthrough(gpu), _monitor(gpu)), _partitions(gpu))
    return next((form for form in forms if form.name == device), None)


def made_instances(records: Iterable[ClaimRecord]) -> frozenset[Made]:
    """Which instances our claims made, or are about to make."""
    changes = (step.change for record in records for step in record.steps)
    return frozenset((c.gpu, c.profile, c.placement) for c in changes if isinstance(c, CreateStage))


def foreign_instances(gpu: Gpu, made: frozenset[Made]) -> tuple[Instance, ...]:
    """The instances on the GPU that we did not make: never destroyed, and given out only as what they are."""
    return tuple(i for i in gpu.instances if (gpu.pci_address, i.profile, i.placement) not in made)


def same_place(one: tuple[str | None, Placement], other: tuple[str | None, Placement]) -> bool:
    """Whether two devices, as profile and placement, exclude each other: they overlap, and are no two parts of one partition."""
    (profile, placement), (other_profile, other_placement) = one, other
    is_split = profile == other_profile and placement.undivided == other_placement.undivided
    if is_split and placement.part != other_placement.part:
        return False
    return bool(covered(placement) & covered(other_placement))


def _whole(gpu: Gpu) -> Form:
    return Form(name=gpu_name(gpu.pci_address), gpu=gpu)


def _passthrough(gpu: Gpu) -> Iterator[Form]:
    if gpu.passthrough is not None:
        yield Form(name=passthrough_name(gpu.pci_address), gpu=gpu, passthrough=True)


def _monitor(gpu: Gpu) -> Form:
    return Form(name=monitor_name(gpu.pci_address), gpu=gpu, sharing=Sharing.MONITOR)


def _partitions(gpu: Gpu) -> Iterator[Form]:
    if gpu.partitioning is None:
        return
    split = gpu.partitioning.split
    for profile in (*gpu.partitioning.profiles, *((split,) if split else ())):
        for placement in profile.placements:
            yield Form(
                name=partition_name(gpu.pci_address, profile, placement),
                gpu=gpu,
                profile=profile,
                placement=placement,
                sharing=Sharing.MEMORY if profile.whole else Sharing.EXCLUSIVE,
            )


def _packing_order(form: Form) -> tuple[int, int, str, int, int]:
    profile, placement = form.profile, form.placement
    assert profile is not None
    assert placement is not None
    return placement.size, profile.compute_units, profile.name, -placement.start, placement.part
