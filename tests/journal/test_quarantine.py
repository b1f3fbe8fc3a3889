import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest

from dra_driver.journal.lines import BLOCK_BYTES, line
from dra_driver.journal.quarantine import SETTLED_KEPT
from dra_driver.journal.store import ClaimJournal
from dra_driver.model.errors import RecordError
from dra_driver.model.record import ClaimRecord, Preparation

NewRecord: TypeAlias = Callable[[int], ClaimRecord]
FileOf: TypeAlias = Callable[[ClaimRecord], Path]


def names(folder: Path) -> list[str]:
    """What lies in the quarantine beside the claims' files."""
    return sorted(path.name for path in (folder / "quarantine").iterdir())


def damage(path: Path, line_number: int) -> None:
    """Change one byte of that line."""
    lines = path.read_bytes().split(b"\n")
    lines[line_number] = lines[line_number].replace(b'"v":1', b'"v":8')
    path.write_bytes(b"\n".join(lines))


def test_damage_tells_what_the_intact_lines_say(
    journal: ClaimJournal, record: ClaimRecord, preparation: Preparation, file_of: FileOf
) -> None:
    """Salvaged is a state that the claim was in, up to the first wrong line; None where the intent itself is wrong."""
    uid, path = record.claim.uid, file_of(record)
    journal.begin(record)
    journal.step(uid, "whole")
    journal.step(uid, "gi-3")
    journal.finish(uid, preparation)
    whole = path.read_bytes()
    states = [None, record, replace(record, identities=("whole",))]
    states.append(replace(record, identities=("whole", "gi-3")))
    for number, state in enumerate(states):
        path.write_bytes(whole)
        damage(path, number)
        _, (first,) = journal.load()
        assert first.salvaged == state
        _, (again,) = journal.load()
        assert (again.salvaged, again.quarantine) == (state, first.quarantine)
        journal.forget(uid)
    path.write_bytes(whole[: whole.index(b"gi-3")])
    _, (cut,) = journal.load()
    assert cut.salvaged == states[2]


def test_salvage_never_speaks_of_another_claim(
    journal: ClaimJournal, new_record: NewRecord, file_of: FileOf
) -> None:
    """Intact lines of another claim, under this one's name, say nothing about this one."""
    journal.begin(new_record(1))
    file_of(new_record(1)).rename(file_of(new_record(2)))
    _, (damage,) = journal.load()
    assert (damage.claim_uid, damage.salvaged) == (new_record(2).claim.uid, None)


def test_a_claim_that_is_well_again_is_not_refused(
    journal: ClaimJournal, record: ClaimRecord, file_of: FileOf
) -> None:
    """Rebuilt or forgotten, no later start reports it; the damaged files stay for people, each of them."""
    uid, path = record.claim.uid, file_of(record)
    journal.begin(record)
    damage(path, 0)
    journal.load()
    with pytest.raises(RecordError, match=r"it was damaged, and is set aside as .*\.1"):
        journal.read(uid)
    journal.rebuild(uid, journal.note(record))
    assert journal.load() == ({uid: record}, ())
    assert names(path.parent) == [f"{uid}.1.settled"]
    damage(path, 0)
    records, (again,) = journal.load()
    assert (records, Path(again.quarantine).name) == ({}, f"{uid}.2")
    journal.forget(uid)
    assert journal.load() == ({}, ())
    assert journal.read(uid) is None
    assert names(path.parent) == [f"{uid}.1.settled", f"{uid}.2.settled"]


def test_a_crash_after_a_rebuild_refuses_nobody(
    journal: ClaimJournal, record: ClaimRecord, file_of: FileOf
) -> None:
    """A claim that has a record is not refused, whatever still lies in the quarantine; releasing it settles that too."""
    uid, path = record.claim.uid, file_of(record)
    journal.begin(record)
    whole = path.read_bytes()
    damage(path, 0)
    journal.load()
    path.write_bytes(whole)
    assert journal.load() == ({uid: record}, ())
    journal.forget(uid)
    assert journal.load() == ({}, ())


def test_only_the_newest_settled_files_are_kept(
    journal: ClaimJournal, new_record: NewRecord, file_of: FileOf
) -> None:
    """Files that refuse a claim all stay, however many; of the others the newest 20."""
    refused, *claims = (new_record(number) for number in range(SETTLED_KEPT + 4))
    for record in (refused, *claims):
        journal.begin(record)
        damage(file_of(record), 0)
        journal.load()
    for record in claims:
        journal.forget(record.claim.uid)
    kept = names(file_of(refused).parent)
    newest = [f"{record.claim.uid}.1.settled" for record in claims[-SETTLED_KEPT:]]
    assert kept == sorted([f"{refused.claim.uid}.1", *newest])


def test_the_record_of_a_newer_release_stays(
    journal: ClaimJournal, record: ClaimRecord, file_of: FileOf
) -> None:
    """It is refused by name and left where it is: never set aside, rebuilt or added to, and nothing is salvaged from it."""
    uid, path = record.claim.uid, file_of(record)
    journal.begin(record)
    newer = line({"v": 2, "transition": "step", "identity": {"kind": "whole"}})
    path.write_bytes((path.read_bytes().rstrip(b"\0") + newer).ljust(BLOCK_BYTES, b"\0"))
    written = path.read_bytes()
    for _ in range(2):
        records, (found,) = journal.load()
        assert (records, found.claim_uid, found.quarantine) == ({}, uid, str(path))
        assert (found.newer, found.salvaged) == (True, None)
        assert "written by a newer release" in found.message
    with pytest.raises(RecordError, match="newer release"):
        journal.step(uid, "whole")
    with pytest.raises(RecordError, match="newer release"):
        journal.read(uid)
    with pytest.raises(RecordError, match="recorded already"):
        journal.rebuild(uid, journal.note(record))
    assert path.read_bytes() == written


def test_a_lack_of_descriptors_is_no_damage(
    journal: ClaimJournal, record: ClaimRecord, file_of: FileOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that merely cannot be opened now is reported, stays where it is, and loads the next time."""
    journal.begin(record)

    def fail(_: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        records, (found,) = journal.load()
    assert (records, found.quarantine) == ({}, str(file_of(record)))
    assert "Too many open files" in found.message
    assert journal.load() == ({record.claim.uid: record}, ())
