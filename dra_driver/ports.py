"""What the processes need from the outside world, and nothing about who provides it.

Adapters (`vendors`, `kube`, `cdi`, `journal`) implement these; tests implement them as small fakes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from dra_driver.model.activity import Activity
from dra_driver.model.device import Gpu, PartitionChange, Target, Vendor
from dra_driver.model.edits import ContainerEdits, SharedEdits
from dra_driver.model.health import Ailment
from dra_driver.model.kinds import Kind
from dra_driver.model.record import ClaimRecord, Preparation

JsonObject: TypeAlias = dict[str, Any]


class Backend(Protocol):
    """One vendor's hardware. Synchronous: the caller runs it in a worker thread with a deadline.

    Every method raises VendorError, whose `retryable` says whether the same call may succeed later.
    """

    vendor: Vendor

    def addresses(self) -> tuple[str, ...]:
        """PCI addresses of the GPUs that the driver has now, ascending. Quick: no GPU is asked, so a sick one delays nobody."""

    def read(self, pci_address: str) -> Gpu:
        """That GPU as it is now; its `index` does not change when other GPUs fail, go or come back."""

    def partition(self, change: PartitionChange) -> str:
        """Make exactly one hardware change and return its identity (see the change's docstring)."""

    def identify(self, target: Target) -> tuple[str, ...]:
        """UUIDs of what the target is now: the GPU's, then the partition's. A few calls; VendorError if it is gone.

        Two equal answers mean the same hardware, whatever a release says about it to containers.
        """

    def edits(self, target: Target) -> ContainerEdits:
        """What a container needs to use the target; VendorError if the target is not there (any more)."""

    def shared(self) -> SharedEdits | None:
        """What it needs beside that, whatever the target; None where that is nothing, VendorError while it is not known yet."""

    def health(self, pci_address: str) -> tuple[Ailment, ...] | None:
        """What the GPU, or an instance on it, suffers from now; a few calls. What its driver does not tell is no ailment; None: it tells nothing."""

    def activity(self, pci_address: str) -> tuple[Activity, ...]:
        """What the GPU and the partitions on it do, the GPU first; some figures are averages since the last call."""

    def close(self) -> None:
        """Give the library back."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A record that cannot be used: its claim is refused, the others go on. Its file was set aside, or stayed, at `quarantine`.

    `salvaged` is what the lines before the damage say, a state that the claim was once in. `newer`: nothing is wrong with the
    record but that only a newer release reads it; there is nothing to mend.
    """

    claim_uid: str
    quarantine: str
    message: str
    salvaged: ClaimRecord | None = None
    newer: bool = False


class ClaimStore(Protocol):
    """Records, one per claim, which survive a killed process; a reboot voids them all. Raises RecordError.

    `begin`, `step`, `finish`, `releasing` and `read` are quick where the file system is not frozen. All others may wait for the disk, or read many files:
    run them in a worker thread.
    """

    def load(self) -> tuple[dict[str, ClaimRecord], tuple[Damage, ...]]:
        """All records of this boot by claim UID, and what was damaged; records of former boots are removed."""

    def read_all(self) -> tuple[dict[str, ClaimRecord], frozenset[str]]:
        """All records that can be read now, and the claims whose records cannot; nothing is changed.

        For a look while another process may be writing.
        """

    def read(self, uid: str) -> ClaimRecord | None:
        """One claim's record as it is on disk now, None where there is none; RecordError where it is damaged."""

    def begin(self, record: ClaimRecord, preparation: Preparation | None = None) -> None:
        """Write down what is going to be done, before hardware is touched; at once with the outcome where that is nothing."""

    def step(self, uid: str, identity: str) -> None:
        """The next step is done and made this."""

    def finish(self, uid: str, preparation: Preparation) -> None:
        """Everything is done."""

    def sync(self, uid: str) -> None:
        """The disk has taken what was written of the claim: one that fails says so before anything depends on it."""

    def releasing(self, uid: str, *, refused: bool = False) -> None:
        """From here on the claim is only undone. `refused`: the step that was due made nothing, whatever is found in its place."""

    def forget(self, uid: str) -> None:
        """The claim holds nothing any more, damaged or not; unknown claims are fine. Works on a full disk."""

    def note(self, record: ClaimRecord) -> str:
        """One line to be kept elsewhere (`CdiStore`), from which the record can be rebuilt. Does no I/O."""

    def noted(self, uid: str, note: str) -> ClaimRecord:
        """The record that the note speaks of; RecordError where that is none of this claim in this boot. Does no I/O."""

    def rebuild(self, uid: str, note: str, preparation: Preparation | None = None) -> ClaimRecord:
        """The claim has the record of its note again, in one step, with that outcome if there is one, and the disk has taken it."""


class CdiStore(Protocol):
    """CDI spec files: one per claim, and one for each set of shared edits. Blocking, but quick. Raises RecordError."""

    def write(
        self, uid: str, devices: Sequence[tuple[str, ContainerEdits]], note: str = ""
    ) -> None:
        """Make the claim's file hold these CDI devices (name, edits); visible to runtimes when this returns.

        `note` is one line for ourselves (`ClaimStore.note`), which runtimes pass over.
        """

    def holds(
        self, uid: str, devices: Sequence[tuple[str, ContainerEdits]], note: str = ""
    ) -> bool:
        """Whether the file is there and says exactly this."""

    def note(self, uid: str) -> str | None:
        """The note in the claim's file; None where there is no file, or none that can be understood."""

    def remove(self, uid: str) -> None:
        """Remove the claim's file; no file is fine."""

    def claims(self) -> frozenset[str]:
        """UIDs of all claims that have a file."""

    def share(self, shared: SharedEdits) -> None:
        """These edits have a file of their own, which runtimes see when this returns; quick where it is there already."""

    def shares(self, cdi_id: str) -> bool:
        """Whether there is a file for the edits with that CDI id."""

    def sweep(self, used: Collection[str]) -> None:
        """Remove the files of shared edits whose CDI ids are not among the used ones, and that nobody shared lately."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A consistent list: a watch from `resource_version` misses nothing."""

    items: tuple[JsonObject, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. BOOKMARK carries nothing but a newer resourceVersion."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: JsonObject


class KubeApi(Protocol):
    """The API server. Objects are plain JSON; errors are KubeError's children; no call retries by itself."""

    async def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> JsonObject:
        """One object, read consistently (never from a stale cache)."""

    async def list(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        selectors: Mapping[str, str] | None = None,
    ) -> Listing:
        """All objects; `selectors` holds `labelSelector` and `fieldSelector`."""

    def watch(
        self,
        kind: Kind,
        *,
        resource_version: str,
        namespace: str | None = None,
        selectors: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes after `resource_version`, until the server ends them; leave them early only by `aclosing`.

        Raises Gone when that version is too old.
        """

    async def create(
        self, kind: Kind, body: JsonObject, *, namespace: str | None = None, dry_run: bool = False
    ) -> JsonObject:
        """The object as stored: fields whose feature gate is off are gone from it."""

    async def replace(self, kind: Kind, body: JsonObject) -> JsonObject:
        """PUT; the body's metadata names the object, its resourceVersion fences the write."""

    async def patch(
        self,
        kind: Kind,
        name: str,
        patch: JsonObject,
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> JsonObject:
        """A merge patch (RFC 7386); a resourceVersion in it fences the write."""

    async def delete(
        self,
        kind: Kind,
        name: str,
        *,
        namespace: str | None = None,
        preconditions: Mapping[str, str] | None = None,
        grace_period_s: int | None = None,
    ) -> None:
        """`preconditions` holds `uid` and `resourceVersion`. Raises NotFound."""

    async def server_version(self) -> tuple[int, int, int]:
        """Major, minor, patch of the API server."""


class Recorder(Protocol):
    """Kubernetes Events, best effort: an Event that cannot be written never fails the work it speaks of."""

    def event(
        self,
        regarding: JsonObject,
        *,
        level: Literal["Normal", "Warning"],
        reason: str,
        message: str,
    ) -> None:
        """Queue an Event on the object (apiVersion, kind, name, namespace, uid)."""


class Clock(Protocol):
    """Time, so that tests can own it."""

    def monotonic(self) -> float:
        """Seconds; only differences mean anything."""

    async def sleep(self, seconds: float) -> None:
        """Wait at least that long."""


class SystemClock:
    """The real one."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait on the running loop."""
        await asyncio.sleep(seconds)


async def beat(clock: Clock, period_s: float) -> None:
    """Wait for the next whole multiple of the period on the clock.

    Whatever is done now and then wakes the process at the same moments: an idle one pays for each time it wakes, and
    hardly for what it does then.
    """
    await clock.sleep(period_s - clock.monotonic() % period_s)
