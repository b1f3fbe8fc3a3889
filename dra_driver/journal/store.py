"""Claim records on disk: `<folder>/<boot id>/<claim uid>.jsonl`, append-only, one file per claim.

Nothing is cached: each transition reads the claim's own file, checks that it may come next, and appends one line. So claims
never wait for each other, and two plugin processes (a rolling upgrade) see the same records. A file is never rewritten:
fields that a newer release wrote stay as they are.

What survives: a killed process loses nothing, as written bytes are the kernel's. A reboot, or a power cut, voids every record
on purpose, so nothing is done for it. `sync` is there for disks that fail: what cannot be written back is dropped from memory
later, without a word, and the record with it. Whoever prepares calls it before hardware is changed, and before success is promised;
`rebuild` does so itself. A process that dies before its sync leaves a record that the next one takes as it reads it.

Beginning, appending and reading take as long as a file system in memory does, unless it is frozen. Syncing and removing may wait.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dra_driver.journal import transitions
from dra_driver.journal.files import add, create, entries, naming, opened
from dra_driver.journal.lines import (
    Lines,
    intact_entries,
    line,
    read_line,
    read_lines,
    whole_blocks,
)
from dra_driver.journal.quarantine import Quarantine
from dra_driver.model.errors import RecordError, RecordNewer, RecordOutdated, StartError
from dra_driver.model.names import CLAIM_UID, checked_claim_uid
from dra_driver.model.record import ClaimRecord, Preparation
from dra_driver.ports import Damage, JsonObject

_STEP_BYTES = 512
_GRANT_BYTES = 8 * 1024  # its part of the result: a driver's libraries are dozens of mounts
_SPARE_BYTES = 512  # left over in every file, so that `releasing` fits on a full disk
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def read_boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """The kernel's name for this boot; StartError if it has none, because records must not outlive what they describe."""
    try:
        boot_id = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise StartError(f"boot id {path} cannot be read: {error}; mount /proc") from error
    if CLAIM_UID.fullmatch(boot_id) is None:
        raise StartError(f"boot id {path} holds {boot_id!r}, not a UUID; mount the kernel's /proc")
    return boot_id


class ClaimJournal:
    """The records of one boot (a ClaimStore). `folder` is the journal's alone: whatever other boots left there is removed."""

    def __init__(
        self, folder: Path, *, boot_id: str, sync: Callable[[int], None] = os.fdatasync
    ) -> None:
        self._folder = folder
        self._boot_id = boot_id
        self._boot = folder / boot_id
        self._quarantine = Quarantine(self._boot / "quarantine")
        self._sync = sync

    def load(self) -> tuple[dict[str, ClaimRecord], tuple[Damage, ...]]:
        """All records of this boot. A damaged file is set aside and reported, by every later load too, until it is settled.

        The record of a newer release is reported and stays where it is, as does a file that cannot be read just now.
        """
        with naming(self._folder, "list"):
            self._remove_former_boots()
            paths, set_aside = self._paths(), self._quarantine.unsettled()
        records: dict[str, ClaimRecord] = {}
        damages = {uid: self._damage(uid, place) for uid, place in set_aside.items()}
        for path in paths:
            uid = path.stem
            damages.pop(uid, None)
            try:
                records[uid] = self._settled_record(path)
            except FileNotFoundError:
                continue  # another instance of the plugin forgot the claim meanwhile
            except (OSError, RecordError) as error:
                damages[uid] = self._damage_in_place(path, error)
        return records, tuple(damages.values())

    def records(self) -> dict[str, ClaimRecord]:
        """All records that can be read now, nothing being changed."""
        return self.read_all()[0]

    def read_all(self) -> tuple[dict[str, ClaimRecord], frozenset[str]]:
        """What `load` would return, without moving or removing anything, and the claims whose records cannot be read."""
        with naming(self._folder, "list"):
            paths = self._paths()
            unreadable = set(self._quarantine.unsettled())
        found: dict[str, ClaimRecord] = {}
        for path in paths:
            try:
                found[path.stem] = self._settled_record(path)
            except FileNotFoundError:
                continue  # another instance of the plugin forgot the claim meanwhile
            except (OSError, RecordError):
                unreadable.add(path.stem)
        return found, frozenset(unreadable - found.keys())

    def read(self, uid: str) -> ClaimRecord | None:
        """The claim's record, None where it has none; RecordError for one that is damaged or was set aside."""
        path = self._path(uid)
        with naming(path, "read"):
            try:
                return self._settled_record(path)
            except FileNotFoundError:
                place = self._quarantine.unsettled().get(uid)
            if place is not None:
                raise RecordError(f"it was damaged, and is set aside as {place}")
        return None

    def begin(self, record: ClaimRecord, preparation: Preparation | None = None) -> None:
        """The record is there, with room for the lines to come; a file has its name only once it is whole."""
        path = self._path(record.claim.uid)
        is_new = not (record.identities or record.preparation or record.releasing)
        if record.boot_id != self._boot_id or not is_new:
            raise RecordError(
                f"journal {path}: claim {record.claim} of boot {record.boot_id} cannot begin:"
                f" only one that nothing was done for, and in boot {self._boot_id}"
            )
        text = line(transitions.intent(record))
        if preparation is not None:
            if record.steps:
                raise RecordError(f"journal {path}: claim {record.claim} has steps to take first")
            text += line(transitions.result(preparation))
        with naming(path, "create"):
            self._create(path, text, _reserve(record, text))

    def step(self, uid: str, identity: str) -> None:
        """RecordError unless a step is missing."""
        self._append(uid, transitions.step(identity))

    def finish(self, uid: str, preparation: Preparation) -> None:
        """RecordError unless every step is done."""
        self._append(uid, transitions.result(preparation))

    def releasing(self, uid: str, *, refused: bool = False) -> None:
        """Saying it again is fine."""
        self._append(uid, transitions.releasing(refused=refused), spare_bytes=1)

    def sync(self, uid: str) -> None:
        """The disk has taken all lines of the claim's file. RecordError where it has not, or where there is no file."""
        path = self._path(uid)
        with naming(path, "sync"), opened(path, os.O_RDONLY) as descriptor:
            self._sync(descriptor)

    def forget(self, uid: str) -> None:
        """The claim has no file any more, and what was set aside refuses it no longer; no file is fine."""
        path = self._path(uid)
        with naming(path, "remove"):
            self._quarantine.settle(uid)
            path.unlink(missing_ok=True)

    def note(self, record: ClaimRecord) -> str:
        """Intent and steps so far on one line of ASCII, with a checksum: all that `noted` and `rebuild` need."""
        return line(transitions.note(record)).decode("ascii").removesuffix("\n")

    def noted(self, uid: str, note: str) -> ClaimRecord:
        """The record that the note speaks of; RecordError where it is damaged, or is another claim's or boot's."""
        with naming(self._path(uid), "rebuild"):
            return self._own(uid, transitions.fold(transitions.entries_of(read_line(note))))

    def rebuild(self, uid: str, note: str, preparation: Preparation | None = None) -> ClaimRecord:
        """The record that the note speaks of is there again, at once and whole, with this outcome if there is one; the disk has taken it.

        RecordError where `noted` raises it, and where the claim has a file.
        """
        path = self._path(uid)
        with naming(path, "rebuild"):
            written = transitions.entries_of(read_line(note))
            if preparation is not None:
                written = (*written, transitions.result(preparation))
            record = self._own(uid, transitions.fold(written))
            text = b"".join(map(line, written))
            self._set_aside_if_damaged(path)
            self._create(path, text, _reserve(record, text), self._sync)
            with suppress(OSError):  # a claim with a record is not refused anyway
                self._quarantine.settle(uid)
        return record

    def _set_aside_if_damaged(self, path: Path) -> None:
        """At the start there may have been no space for it; a sound file stays, and is in the way."""
        try:
            self._settled_record(path)
        except FileNotFoundError:
            return
        except RecordNewer:
            return
        except RecordError:
            self._quarantine.take(path)

    def _path(self, uid: str) -> Path:
        return self._boot / f"{checked_claim_uid(uid)}.jsonl"

    def _paths(self) -> list[Path]:
        return sorted(path for path in entries(self._boot) if path.suffix == ".jsonl")

    def _create(
        self, path: Path, text: bytes, size_bytes: int, sync: Callable[[int], None] | None = None
    ) -> None:
        try:
            create(path, text, size_bytes, sync)
        except FileNotFoundError:  # the first record of this boot
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._boot.mkdir(mode=0o700, exist_ok=True)
            create(path, text, size_bytes, sync)

    def _append(self, uid: str, entry: JsonObject, *, spare_bytes: int = _SPARE_BYTES) -> None:
        path = self._path(uid)
        with naming(path, "append to"), opened(path, os.O_RDWR) as descriptor:
            data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            record, lines = self._understood(uid, data)
            if transitions.follow(record, entry) == record:
                return
            text = lines.following(entry)
            size_bytes = whole_blocks(lines.end + len(text) + spare_bytes)
            add(descriptor, text, lines.end, size_bytes)

    def _settled_record(self, path: Path) -> ClaimRecord:
        """The record in the file; what differs between two looks is just being written, and no damage."""
        data = path.read_bytes()
        while True:
            try:
                return self._understood(path.stem, data)[0]
            except RecordError:
                before, data = data, path.read_bytes()
                if data == before:
                    raise

    def _understood(self, uid: str, data: bytes) -> tuple[ClaimRecord, Lines]:
        lines = read_lines(data)
        return self._own(uid, transitions.fold(lines.entries)), lines

    def _own(self, uid: str, record: ClaimRecord) -> ClaimRecord:
        if record.claim.uid != uid:
            raise RecordError(f"it speaks of claim {record.claim.uid} in boot {record.boot_id}")
        if record.boot_id != self._boot_id:
            raise RecordOutdated(f"it speaks of claim {uid} in boot {record.boot_id}")
        return record

    def _remove_former_boots(self) -> None:
        for path in entries(self._folder):
            if path.is_dir() and path.name != self._boot_id:
                shutil.rmtree(
                    path, ignore_errors=True
                )  # nobody reads it; the next start tries again

    def _damage_in_place(self, path: Path, error: Exception) -> Damage:
        uid = path.stem
        if isinstance(error, RecordNewer):
            return Damage(
                uid, str(path), f"the record of claim {uid} stays as it is: {error}", newer=True
            )
        if isinstance(error, OSError) and error.errno in _PASSING:
            return Damage(uid, str(path), f"the record of claim {uid} cannot be read now: {error}")
        try:
            place = self._quarantine.take(path)
        except OSError as failure:
            return self._damage(uid, path, f": {error}; it cannot be set aside: {failure}")
        return self._damage(uid, place, f": {error}")

    def _damage(self, uid: str, place: Path, why: str = "") -> Damage:
        try:
            salvaged = self._salvaged(uid, place.read_bytes())
        except OSError:
            salvaged = None
        message = f"the record of claim {uid} is damaged{why}; its file is {place}"
        return Damage(uid, str(place), message, salvaged=salvaged)

    def _salvaged(self, uid: str, data: bytes) -> ClaimRecord | None:
        """What the lines say that come before the first wrong one."""
        record: ClaimRecord | None = None
        with suppress(RecordError):
            for entry in intact_entries(data):
                record = self._own(uid, transitions.follow(record, entry))
        return record


def _reserve(record: ClaimRecord, text: bytes) -> int:
    later_bytes = _STEP_BYTES * len(record.steps) + _GRANT_BYTES * len(record.grants)
    return whole_blocks(len(text) + later_bytes + _SPARE_BYTES)
