"""What a second process may see while the first one writes."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest

from dra_driver.journal.store import ClaimJournal
from dra_driver.model.errors import RecordError
from dra_driver.model.record import ClaimRecord, Preparation

NewRecord: TypeAlias = Callable[[int], ClaimRecord]
FileOf: TypeAlias = Callable[[ClaimRecord], Path]


def test_looking_changes_nothing(
    journal: ClaimJournal, tmp_path: Path, new_record: NewRecord, file_of: FileOf
) -> None:
    """Both see what load would; a damaged file and a former boot's folder stay where they are."""
    first, second, damaged = (new_record(number) for number in range(3))
    journal.begin(first)
    journal.begin(second)
    journal.step(second.claim.uid, "whole")
    journal.begin(damaged)
    path = file_of(damaged)
    path.write_bytes(path.read_bytes().replace(b"plugin-a", b"plugin-b"))
    former = tmp_path / "journal" / "former"
    former.mkdir()
    stepped = replace(second, identities=("whole",))
    assert journal.records() == {first.claim.uid: first, second.claim.uid: stepped}
    assert journal.read(second.claim.uid) == stepped
    assert journal.read(new_record(9).claim.uid) is None
    with pytest.raises(RecordError, match=rf"journal {path}: line 1 does not match"):
        journal.read(damaged.claim.uid)
    assert path.exists()
    assert former.exists()


def test_an_empty_journal_can_be_looked_at(journal: ClaimJournal, record: ClaimRecord) -> None:
    """No folder yet, no record yet."""
    assert journal.records() == {}
    assert journal.read(record.claim.uid) is None


def test_half_a_line_is_no_damage(
    journal: ClaimJournal, record: ClaimRecord, file_of: FileOf
) -> None:
    """However much of a line another process has written so far, the record before it is read, and the file is left alone."""
    uid, path = record.claim.uid, file_of(record)
    journal.begin(record)
    before = path.read_bytes()
    journal.step(uid, "whole")
    after = path.read_bytes()
    start = len(before.rstrip(b"\0"))
    for written in range(start, len(after.rstrip(b"\0")) - 2):
        path.write_bytes(after[:written] + before[written:])
        assert journal.read(uid) == record
        assert journal.records() == {uid: record}
        assert journal.load() == ({uid: record}, ())


def test_bytes_that_change_between_two_looks_are_no_damage(
    journal: ClaimJournal, record: ClaimRecord, file_of: FileOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that reads as damaged once, and differently at the next look, is read again instead of being set aside."""
    journal.begin(record)
    read_bytes = Path.read_bytes
    looks = iter((b"damaged", b"half", read_bytes(file_of(record))[:100]))
    monkeypatch.setattr(Path, "read_bytes", lambda path: next(looks, None) or read_bytes(path))
    assert journal.load() == ({record.claim.uid: record}, ())


def test_a_reader_beside_a_writer_sees_states_only(
    journal: ClaimJournal, new_record: NewRecord, preparation: Preparation
) -> None:
    """While one thread lives 150 claims' lives, another sees each claim in a state that it was in, and no damage."""
    over = threading.Event()
    wrong: list[object] = []

    def look() -> None:
        while not over.is_set():
            found, damages = journal.load()
            wrong.extend(damages)
            for uid, record in {**found, **journal.records()}.items():
                expected = replace(
                    new_record(int(uid[-12:], 16)),
                    identities=("whole", "gi-3")[: len(record.identities)],
                    preparation=preparation if record.preparation else None,
                    releasing=record.releasing,
                )
                if record != expected:
                    wrong.append(record)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for number in range(150):
            record = new_record(number)
            journal.begin(record)
            journal.step(record.claim.uid, "whole")
            journal.step(record.claim.uid, "gi-3")
            journal.finish(record.claim.uid, preparation)
            journal.releasing(record.claim.uid)
            journal.forget(record.claim.uid)
    finally:
        over.set()
        reader.join()
    assert wrong == []
