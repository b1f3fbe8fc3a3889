"""What a node remembers of a claim: enough to answer again, to undo and to release, with nobody else's help."""

from __future__ import annotations

from dataclasses import dataclass

from dra_driver.model.claim import ClaimRef
from dra_driver.model.device import BindPassthrough, CreateStage, Placement, StepChange
from dra_driver.model.edits import ContainerEdits


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One device of a claim. `profile` and `placement` are None for a whole GPU.

    `monitor`: looked at and never changed, so it excludes nobody. `requests` holds main requests only.
    """

    device: str
    pool: str
    requests: tuple[str, ...]
    gpu: str
    profile: str | None = None
    placement: Placement | None = None
    share_id: str | None = None
    monitor: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedDevice:
    """What the kubelet is told about one device (dra/v1 `Device`), and which hardware it was: UUIDs, the GPU's first."""

    requests: tuple[str, ...]
    pool: str
    device: str
    cdi_ids: tuple[str, ...]
    share_id: str | None = None
    hardware: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One hardware change on behalf of one granted device."""

    device: str
    change: StepChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """The outcome: what the kubelet was told, and the container edits of each device by name."""

    devices: tuple[PreparedDevice, ...]
    edits: tuple[tuple[str, ContainerEdits], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRecord:
    """A claim's whole history on this node, folded.

    `identities` has one entry for each step that was carried out, in order; `preparation` is None until all are done.
    `owner` is the plugin instance that wrote the intent, `boot_id` the boot in which it holds.
    """

    claim: ClaimRef
    boot_id: str
    owner: str
    grants: tuple[Grant, ...]
    steps: tuple[Step, ...] = ()
    identities: tuple[str, ...] = ()
    preparation: Preparation | None = None
    releasing: bool = False

    @property
    def changed_gpus(self) -> dict[str, str]:
        """The GPUs that its steps change, each with its pool."""
        pools = {grant.gpu: grant.pool for grant in self.grants}
        return {step.change.gpu: pools[step.change.gpu] for step in self.steps}

    @property
    def built_on(self) -> dict[str, str]:
        """The GPUs on which its steps make something, each with its pool: where there may be something to undo."""
        return {
            step.change.gpu: self.changed_gpus[step.change.gpu]
            for step in self.steps
            if isinstance(step.change, CreateStage | BindPassthrough)
        }
