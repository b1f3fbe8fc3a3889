import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest

from dra_driver.cdi.folder import CdiFolder
from dra_driver.journal import transitions
from dra_driver.journal.lines import line
from dra_driver.journal.store import ClaimJournal
from dra_driver.model.errors import NameInvalid, RecordError, RecordNewer
from dra_driver.model.record import ClaimRecord, Preparation
from dra_driver.ports import JsonObject

NewRecord: TypeAlias = Callable[[int], ClaimRecord]
FileOf: TypeAlias = Callable[[ClaimRecord], Path]


def done(record: ClaimRecord) -> ClaimRecord:
    """The record after all of its steps."""
    return replace(record, identities=("whole", "gi-3"))


def note_line(entry: JsonObject) -> str:
    """The entry as a note."""
    return line(entry).decode().removesuffix("\n")


def damage(path: Path) -> None:
    """Change one byte of the intent."""
    path.write_bytes(path.read_bytes().replace(b"plugin-a", b"plugin-b"))


def test_a_lost_record_comes_back_from_its_cdi_file(
    journal: ClaimJournal,
    tmp_path: Path,
    record: ClaimRecord,
    preparation: Preparation,
    file_of: FileOf,
) -> None:
    """The note that was written beside the edits is enough: the claim has its record again, goes on, and is refused no more."""
    uid, cdi = record.claim.uid, CdiFolder(tmp_path / "cdi")
    journal.begin(record)
    journal.step(uid, "whole")
    journal.step(uid, "gi-3")
    cdi.write(uid, preparation.edits, journal.note(done(record)))
    journal.finish(uid, preparation)
    damage(file_of(record))
    records, (found,) = journal.load()
    assert (records, found.claim_uid) == ({}, uid)

    note = CdiFolder(tmp_path / "cdi").note(uid)
    assert note is not None
    assert journal.rebuild(uid, note) == done(record)
    assert journal.load() == ({uid: done(record)}, ())
    journal.finish(uid, preparation)
    journal.releasing(uid)
    journal.forget(uid)
    assert journal.load() == ({}, ())


def test_a_record_comes_back_with_its_outcome(
    journal: ClaimJournal, record: ClaimRecord, preparation: Preparation
) -> None:
    """What is noted can be read first, and nothing is written; given the outcome, the record is finished in the same step."""
    uid, note = record.claim.uid, journal.note(done(record))
    assert journal.noted(uid, note) == done(record)
    assert journal.load() == ({}, ())
    finished = replace(done(record), preparation=preparation)
    assert journal.rebuild(uid, note, preparation) == finished
    assert journal.load() == ({uid: finished}, ())


def test_no_outcome_before_the_last_step(
    journal: ClaimJournal, record: ClaimRecord, preparation: Preparation
) -> None:
    """A note of half-done work makes no finished record."""
    with pytest.raises(RecordError, match="'result' comes out of turn"):
        journal.rebuild(record.claim.uid, journal.note(record), preparation)
    assert journal.load() == ({}, ())


def test_a_record_that_the_disk_does_not_take_is_not_rebuilt(
    tmp_path: Path, record: ClaimRecord
) -> None:
    """Nobody finds it afterwards; once the disk takes it, it is there."""
    is_broken = True

    def sync(_: int) -> None:
        if is_broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    journal = ClaimJournal(tmp_path, boot_id=record.boot_id, sync=sync)
    with pytest.raises(RecordError, match=r"cannot rebuild .*Input/output error; look for disk"):
        journal.rebuild(record.claim.uid, journal.note(record))
    assert journal.load() == ({}, ())
    is_broken = False
    assert journal.rebuild(record.claim.uid, journal.note(record)) == record


def test_a_rebuilt_record_is_as_good_as_a_first_one(
    journal: ClaimJournal, record: ClaimRecord, file_of: FileOf
) -> None:
    """The file is what begin and the steps would have written, to the byte, space for later lines included."""
    uid = record.claim.uid
    journal.begin(record)
    journal.step(uid, "whole")
    journal.step(uid, "gi-3")
    written = file_of(record).read_bytes()
    file_of(record).unlink()
    journal.rebuild(uid, journal.note(done(record)))
    assert file_of(record).read_bytes() == written
    assert list(file_of(record).parent.iterdir()) == [file_of(record)]


def test_what_is_not_this_claims_note_is_refused(
    journal: ClaimJournal, new_record: NewRecord
) -> None:
    """Another claim's note, one of another boot, one with a wrong byte: the error names the file, and nothing is written."""
    record, other = new_record(1), new_record(2)
    uid = record.claim.uid
    reboot = replace(record, boot_id="11111111-2222-4333-8444-555555555555")
    too_many = transitions.note(record) | {"identities": ["a", "b", "c"]}
    for note, message in (
        (journal.note(other), f"it speaks of claim {other.claim.uid}"),
        (journal.note(reboot), "in boot 11111111"),
        (journal.note(record).replace("claim-1", "claim-2"), "checksum"),
        (journal.note(record)[:-1], "checksum"),
        ("", "checksum"),
        (note_line(transitions.intent(record)), "'intent' is no note"),
        (note_line(too_many), "comes out of turn"),
    ):
        for read in (journal.rebuild, journal.noted):
            with pytest.raises(RecordError, match=rf"journal .*{uid}\.jsonl: .*{message}"):
                read(uid, note)
    with pytest.raises(NameInvalid):
        journal.rebuild("../passwd", journal.note(record))
    assert journal.load() == ({}, ())


def test_a_record_that_is_there_is_not_rebuilt(journal: ClaimJournal, record: ClaimRecord) -> None:
    """Rebuilding replaces nothing: what the journal says goes before what a note says."""
    journal.begin(record)
    journal.step(record.claim.uid, "whole")
    with pytest.raises(RecordError, match="recorded already"):
        journal.rebuild(record.claim.uid, journal.note(record))
    assert journal.load() == ({record.claim.uid: replace(record, identities=("whole",))}, ())


def test_what_a_newer_release_noted_survives(
    journal: ClaimJournal, record: ClaimRecord, file_of: FileOf
) -> None:
    """Fields of a note that this release does not know stand in the rebuilt file; a newer format is left to that release."""
    uid = record.claim.uid
    note = transitions.note(record) | {"energyJoules": 7}
    assert journal.rebuild(uid, note_line(note)) == record
    assert b'"energyJoules":7' in file_of(record).read_bytes()
    journal.forget(uid)
    with pytest.raises(RecordNewer, match=rf"{uid}.*newer release"):
        journal.rebuild(uid, note_line(note | {"v": 2}))
    assert journal.load() == ({}, ())
