import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import pytest

from dra_driver.journal.lines import BLOCK_BYTES, line
from dra_driver.journal.store import ClaimJournal
from dra_driver.model.errors import RecordError
from dra_driver.model.record import ClaimRecord
from dra_driver.ports import JsonObject

NewRecord: TypeAlias = Callable[[int], ClaimRecord]
FileOf: TypeAlias = Callable[[ClaimRecord], Path]


def written_bytes(path: Path) -> int:
    """How much of the file is lines."""
    return len(path.read_bytes().rstrip(b"\0"))


def test_damage_is_set_aside_and_reported(
    journal: ClaimJournal, tmp_path: Path, record: ClaimRecord, file_of: FileOf
) -> None:
    """The file moves to the quarantine as it is, and is reported by every start until somebody removes it from there."""
    path = file_of(record)
    journal.begin(record)
    path.write_bytes(path.read_bytes().replace(b"claim-1", b"claim-2"))
    damaged = path.read_bytes()
    records, (damage,) = journal.load()
    assert records == {}
    place = path.parent / "quarantine" / f"{record.claim.uid}.1"
    assert (damage.claim_uid, damage.quarantine) == (record.claim.uid, str(place))
    assert record.claim.uid in damage.message
    assert "line 1 does not match its checksum" in damage.message
    assert place.read_bytes() == damaged
    records, (again,) = journal.load()
    assert (records, again.claim_uid, again.quarantine) == ({}, record.claim.uid, str(place))
    place.unlink()
    assert journal.load() == ({}, ())


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "no intent"),
        ([{"v": 0}], "format version 0"),
        ([{"v": 1, "transition": "releasing"}], "comes before the intent"),
    ],
)
def test_lines_that_make_no_record_are_damage(
    journal: ClaimJournal,
    record: ClaimRecord,
    entries: list[JsonObject],
    message: str,
    file_of: FileOf,
) -> None:
    """Lines whose checksums hold but that make no record are damage: no intent, no version of ours, another order."""
    journal.begin(record)
    path = file_of(record)
    path.write_bytes(b"".join(map(line, entries)).ljust(BLOCK_BYTES, b"\0"))
    _, (damage,) = journal.load()
    assert message in damage.message


def test_a_record_under_another_name_is_damage(
    journal: ClaimJournal, new_record: NewRecord, file_of: FileOf
) -> None:
    """A file that speaks of another claim is not believed."""
    journal.begin(new_record(1))
    path = file_of(new_record(1))
    path.rename(file_of(new_record(2)))
    records, (damage,) = journal.load()
    assert records == {}
    assert damage.claim_uid == new_record(2).claim.uid
    assert new_record(1).claim.uid in damage.message


def test_a_file_that_cannot_be_read_hides_no_other(
    journal: ClaimJournal, new_record: NewRecord, file_of: FileOf
) -> None:
    """One unreadable file (here: a folder in its place) is reported, the other claims load."""
    journal.begin(new_record(1))
    file_of(new_record(2)).mkdir()
    records, (damage,) = journal.load()
    assert list(records) == [new_record(1).claim.uid]
    assert damage.claim_uid == new_record(2).claim.uid


def test_a_damaged_record_takes_no_further_line(
    journal: ClaimJournal, record: ClaimRecord, file_of: FileOf
) -> None:
    """A file that is damaged while the process lives is refused, by path, and not written to."""
    journal.begin(record)
    path = file_of(record)
    damaged = path.read_bytes().replace(b"claim-1", b"claim-2")
    path.write_bytes(damaged)
    with pytest.raises(RecordError, match=rf"{path}.*checksum"):
        journal.step(record.claim.uid, "whole")
    assert path.read_bytes() == damaged


def test_a_begin_cut_by_a_crash_leaves_nothing(
    journal: ClaimJournal, record: ClaimRecord, file_of: FileOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed while it writes the intent leaves no record, and no file either; the next begin works."""

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        with suppress(BaseException), monkeypatch.context() as patch:
            patch.setattr(os, "link", die)  # which gives the file its name
            journal.begin(record)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert list(file_of(record).parent.iterdir()) == []
    assert journal.load() == ({}, ())
    journal.begin(record)
    assert journal.load() == ({record.claim.uid: record}, ())


def test_a_short_write_is_an_error(
    journal: ClaimJournal, record: ClaimRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line is there whole or not at all, also where the kernel takes only a part of it."""
    journal.begin(record)
    pwrite = os.pwrite
    calls = iter(range(10))

    def short_once(descriptor: int, data: bytes, offset: int) -> int:
        return pwrite(descriptor, data[:9] if next(calls) == 0 else data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", short_once)
        with pytest.raises(RecordError, match="only 9 of"):
            journal.step(record.claim.uid, "whole")
    assert journal.load() == ({record.claim.uid: record}, ())
