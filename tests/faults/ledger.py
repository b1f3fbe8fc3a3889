"""What the plugin has promised so far, to be held against what there is (`invariants`)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from dra_driver.model.device import Instance
from tests.faults.outside import Outside


class Told(NamedTuple):
    """One device of an answer: pool, name, CDI ids."""

    pool: str
    device: str
    cdi_ids: tuple[str, ...]


Foreign: TypeAlias = tuple[str, Instance]
"""A GPU's address, and an instance on it that somebody else made."""


@dataclass(slots=True)
class Ledger:
    """What was asked and what was said, claim by claim; the last word counts.

    `broken` are GPUs that the test has broken on purpose, `damaged` claims whose record it has.
    """

    held: dict[str, tuple[Told, ...]] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    foreign: tuple[Foreign, ...] = ()
    broken: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)
    written: dict[str, bytes] = field(default_factory=dict)
    hardware: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)

    def asked_to_prepare(self, uid: str) -> None:
        """Until it is answered, nothing is promised; what was written before stays."""
        self.held.pop(uid, None)
        self.released.discard(uid)
        self.refused.pop(uid, None)

    def asked_to_unprepare(self, uid: str) -> None:
        """Until it is answered, the claim may be as it was, or gone, or on its way."""
        self.asked_to_prepare(uid)
        self.written.pop(uid, None)
        self.hardware.pop(uid, None)

    def prepared(self, uid: str, devices: Collection[Told]) -> None:
        """The kubelet was told that the claim has these devices."""
        self.held[uid] = tuple(devices)

    def unprepared(self, uid: str) -> None:
        """The kubelet was told that the claim has nothing any more."""
        self.released.add(uid)

    def refuses(self, uid: str, error: str) -> None:
        """The kubelet was told `<Reason>: <message>`."""
        self.refused[uid] = error

    def remember(self, outside: Outside) -> None:
        """What the records of held claims say at this look must stay true."""
        for uid in self.held.keys() & outside.records.keys():
            preparation = outside.records[uid].preparation
            if preparation is not None:
                self.written[uid] = outside.journal.get(uid, b"")
                self.hardware.setdefault(uid, tuple(d.hardware for d in preparation.devices))
