"""Hardware as the vendors' libraries report it: GPUs, what they can be cut into, what exists on them now.

Vendor-neutral by construction. A GPU is in one *mode* at a time; the whole GPU is usable in `whole_mode`, a partition of a
profile in that profile's mode (NVIDIA: `whole` and `mig`; AMD: `SPX`, `CPX` and so on). A partition occupies a range of
*positions* (NVIDIA: memory slices) and amounts of *counters* (compute slices, engines).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

from dra_driver.model.slices import AttributeValue


class Vendor(StrEnum):
    """Also the last part of the pool's name."""

    NVIDIA = "nvidia"
    AMD = "amd"


@dataclass(frozen=True, slots=True, order=True)
class Placement:
    """Positions `start` to `start + size - 1` of a GPU; `part` tells those apart that share them (`PartitionProfile.whole`)."""

    start: int
    size: int
    part: int = 0

    @property
    def undivided(self) -> Placement:
        """All of these positions."""
        return replace(self, part=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionProfile:
    """A size in which the hardware cuts partitions.

    `consumes` are whole numbers taken from `Partitioning.counters`; `placements` are all the legal ones, ascending.
    `stages` names the hardware objects that make up one partition, in the order of their creation.
    `whole`: it is a part of a partition of that profile. The parts of one have its positions, memory and engines in common, so
    `consumes` is what they take together; the first stage is the whole one's, made with the first part and gone with the last.
    """

    name: str
    mode: str
    memory_bytes: int
    compute_units: int
    placements: tuple[Placement, ...]
    consumes: Mapping[str, int]
    stages: tuple[str, ...]
    whole: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Partitioning:
    """What a GPU can be cut into, and whether it is now in a mode for that.

    `switchable`: the mode can be changed now, without a reset. `positions` and `counters` are the GPU's totals.
    `split` is the one profile of parts that is offered, if any.
    """

    mode: str
    whole_mode: str
    switchable: bool
    positions: int
    counters: Mapping[str, int]
    profiles: tuple[PartitionProfile, ...]
    split: PartitionProfile | None = None

    def profile(self, name: str) -> PartitionProfile | None:
        """The profile of that name, or None."""
        if self.split is not None and self.split.name == name:
            return self.split
        return next((p for p in self.profiles if p.name == name), None)

    @property
    def parts(self) -> int:
        """Into how many parts a partition is split: 1 where none is."""
        return 1 + max((p.part for p in self.split.placements), default=0) if self.split else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A partition that exists.

    `identity` joins the vendor's handles of its stages by `/`, so that of a stage is a prefix of it; valid until destroyed.
    `complete` is False for a leftover whose later stages were never created.
    """

    profile: str
    placement: Placement
    identity: str
    uuid: str
    complete: bool = True


class Passthrough(StrEnum):
    """Whether a virtual machine can have a GPU: it could, or the GPU is in vfio-pci's hands and out of its driver's sight."""

    POSSIBLE = "possible"
    BOUND = "bound"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One physical GPU. `pci_address` is `dddd:bb:dd.f`, lower case, and names it for ever; `index` may change.

    `passthrough` is None where no virtual machine can have it, or nobody offers it.
    """

    vendor: Vendor
    pci_address: str
    uuid: str
    index: int
    product_name: str
    architecture: str
    memory_bytes: int
    compute_units: int
    driver_version: str
    compute_capability: str | None = None
    numa_node: int | None = None
    pcie_root: str | None = None
    engines: Mapping[str, int] = field(default_factory=dict)
    extras: Mapping[str, AttributeValue] = field(default_factory=dict)
    partitioning: Partitioning | None = None
    instances: tuple[Instance, ...] = ()
    passthrough: Passthrough | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMode:
    """Bring a GPU into another mode; the change's identity is the former mode."""

    gpu: str
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateStage:
    """Create one stage of a partition; its identity is the vendor's handle. `parent`: the former stage's identity.

    `shared`: another claim made it for a part of its own, and this one's part is to be in the same.
    """

    gpu: str
    profile: str
    placement: Placement
    stage: str
    parent: str | None = None
    shared: bool = False

    @property
    def made(self) -> tuple[str, str, Placement, str]:
        """What it makes, whoever does."""
        return self.gpu, self.profile, self.placement, self.stage


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyStage:
    """Destroy what a CreateStage made and named. Already gone counts as done.

    Identities are used again: whatever has this one but another profile or placement is another's, and is left alone.
    """

    created: CreateStage
    identity: str

    @property
    def gpu(self) -> str:
        """The GPU on which it is."""
        return self.created.gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class BindPassthrough:
    """Give a GPU, with its whole IOMMU group, to vfio-pci; the change's identity is the driver that had it."""

    gpu: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnbindPassthrough:
    """Give a GPU that vfio-pci has, or half has, back to its own driver, the identity. It is there already: that counts as done."""

    gpu: str


PartitionChange: TypeAlias = (
    SetMode | CreateStage | DestroyStage | BindPassthrough | UnbindPassthrough
)
StepChange: TypeAlias = SetMode | CreateStage | BindPassthrough | UnbindPassthrough
"""The changes that prepare something."""
UndoChange: TypeAlias = DestroyStage | UnbindPassthrough
"""The changes that take back what a step made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a container is to be given: a GPU (by PCI address), or the instance of that identity on it.

    `passthrough`: the GPU as a virtual machine uses it. `part`: which one the instance is of those that share its place.
    """

    gpu: str
    instance: str | None = None
    passthrough: bool = False
    part: int = 0
