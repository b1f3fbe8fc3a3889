import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest

from dra_driver.journal.lines import BLOCK_BYTES, line
from dra_driver.journal.store import ClaimJournal, read_boot_id
from dra_driver.model.errors import NameInvalid, RecordError, StartError
from dra_driver.model.record import ClaimRecord, Grant, Preparation
from dra_driver.ports import ClaimStore

NewRecord: TypeAlias = Callable[[int], ClaimRecord]
FileOf: TypeAlias = Callable[[ClaimRecord], Path]


def test_every_transition_is_there_after_a_restart(
    journal: ClaimJournal, tmp_path: Path, record: ClaimRecord, preparation: Preparation
) -> None:
    """Another process reads after each transition what was said so far, and at last nothing."""
    store: ClaimStore = journal
    uid, boot = record.claim.uid, record.boot_id

    def loaded() -> dict[str, ClaimRecord]:
        records, damages = ClaimJournal(tmp_path / "journal", boot_id=boot).load()
        assert damages == ()
        return records

    assert loaded() == {}
    store.begin(record)
    assert loaded() == {uid: record}
    store.step(uid, "whole")
    store.step(uid, "gi-3")
    done = replace(record, identities=("whole", "gi-3"))
    assert loaded() == {uid: done}
    store.finish(uid, preparation)
    assert loaded() == {uid: replace(done, preparation=preparation)}
    store.releasing(uid)
    store.releasing(uid)
    assert loaded() == {uid: replace(done, preparation=preparation, releasing=True)}
    store.forget(uid)
    store.forget(uid)
    assert loaded() == {}


def test_two_instances_may_write_one_after_the_other(
    journal: ClaimJournal, tmp_path: Path, record: ClaimRecord, preparation: Preparation
) -> None:
    """Nothing is cached: the newer plugin process goes on where the older one stopped."""
    newer = ClaimJournal(tmp_path / "journal", boot_id=record.boot_id)
    newer.load()
    journal.begin(record)
    newer.step(record.claim.uid, "whole")
    journal.step(record.claim.uid, "gi-3")
    newer.finish(record.claim.uid, preparation)
    records, _ = journal.load()
    assert records[record.claim.uid].preparation == preparation


def test_only_a_sync_waits_for_the_disk(
    tmp_path: Path, record: ClaimRecord, preparation: Preparation
) -> None:
    """One `sync` asks the disk once, for that claim's file alone; nothing else does."""
    synced: list[str] = []

    def sync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().stem)

    journal = ClaimJournal(tmp_path, boot_id=record.boot_id, sync=sync)
    uid = record.claim.uid
    journal.begin(record)
    journal.step(uid, "whole")
    journal.step(uid, "gi-3")
    journal.finish(uid, preparation)
    assert synced == []
    journal.sync(uid)
    assert synced == [uid]
    journal.releasing(uid)
    journal.forget(uid)
    assert synced == [uid]
    with pytest.raises(RecordError, match=r"cannot sync .*begin it first"):
        journal.sync(uid)


def test_only_root_reads_it(journal: ClaimJournal, record: ClaimRecord, file_of: FileOf) -> None:
    """Folders are 0700 and files 0600."""
    journal.begin(record)
    path = file_of(record)
    modes = [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent, path.parents[1])]
    assert modes == [0o600, 0o700, 0o700]


def test_space_for_later_lines_is_reserved(
    journal: ClaimJournal, record: ClaimRecord, preparation: Preparation, file_of: FileOf
) -> None:
    """A claim's file takes one block from its beginning to its end; one with many devices takes what it needs."""
    journal.begin(record)
    path = file_of(record)
    blocks_512 = path.stat().st_blocks
    assert path.stat().st_size == BLOCK_BYTES <= blocks_512 * 512
    journal.step(record.claim.uid, "whole")
    journal.step(record.claim.uid, "gi-3")
    journal.finish(record.claim.uid, preparation)
    journal.releasing(record.claim.uid)
    assert (path.stat().st_size, path.stat().st_blocks) == (BLOCK_BYTES, blocks_512)
    journal.forget(record.claim.uid)
    journal.begin(replace(record, grants=record.grants * 8))
    assert path.stat().st_size == 5 * BLOCK_BYTES


def test_a_longer_result_than_expected_still_fits(
    journal: ClaimJournal, record: ClaimRecord, preparation: Preparation
) -> None:
    """Where the space reserved does not do, the file grows by whole blocks."""
    name, edits = preparation.edits[0]
    large = replace(preparation, edits=((name, replace(edits, mounts=edits.mounts * 400)),))
    journal.begin(replace(record, steps=()))
    journal.finish(record.claim.uid, large)
    journal.releasing(record.claim.uid)
    records, damages = journal.load()
    assert damages == ()
    assert records[record.claim.uid].preparation == large
    assert records[record.claim.uid].releasing


def test_a_claim_begins_once(journal: ClaimJournal, record: ClaimRecord) -> None:
    """Begin on a file that is there is refused and leaves it as it was."""
    journal.begin(record)
    journal.step(record.claim.uid, "whole")
    with pytest.raises(RecordError, match=r"cannot create journal .*recorded already: forget it"):
        journal.begin(record)
    records, _ = journal.load()
    assert records[record.claim.uid].identities == ("whole",)


def test_only_new_claims_of_this_boot_begin(
    journal: ClaimJournal, record: ClaimRecord, preparation: Preparation
) -> None:
    """What could not be read back is refused before hardware is touched."""
    for wrong in (
        replace(record, boot_id="11111111-2222-4333-8444-555555555555"),
        replace(record, identities=("gi-1",)),
        replace(record, preparation=preparation),
        replace(record, releasing=True),
    ):
        with pytest.raises(RecordError, match="cannot begin"):
            journal.begin(wrong)
    assert journal.load() == ({}, ())


def test_transitions_out_of_turn_are_refused_and_not_written(
    journal: ClaimJournal, record: ClaimRecord, preparation: Preparation
) -> None:
    """A wrong call is an error now, not a damaged record at the next start."""
    uid = record.claim.uid
    with pytest.raises(RecordError, match="not recorded: begin it first"):
        journal.step(uid, "gi-3")
    journal.begin(record)
    with pytest.raises(RecordError, match="'result' comes out of turn: 2 of 2 steps are missing"):
        journal.finish(uid, preparation)
    journal.releasing(uid)
    with pytest.raises(RecordError, match="'step' comes out of turn"):
        journal.step(uid, "gi-3")
    assert journal.load() == ({uid: replace(record, releasing=True)}, ())


def test_a_uid_is_no_path(journal: ClaimJournal, record: ClaimRecord) -> None:
    """A UID that is no UUID never reaches the file system."""
    with pytest.raises(NameInvalid):
        journal.forget("../../etc/passwd")
    with pytest.raises(NameInvalid):
        journal.begin(replace(record, claim=replace(record.claim, uid="..")))


def test_fields_of_a_newer_release_survive(
    journal: ClaimJournal, record: ClaimRecord, file_of: FileOf
) -> None:
    """What this release does not understand stays in the file, because a file is only ever added to."""
    journal.begin(record)
    path = file_of(record)
    newer = line({"v": 1, "transition": "step", "identity": "whole", "energyJoules": 7})
    with path.open("r+b") as file:
        file.seek(len(path.read_bytes().rstrip(b"\0")))
        file.write(newer)
    journal.step(record.claim.uid, "gi-3")
    journal.releasing(record.claim.uid)
    assert newer in path.read_bytes()
    records, _ = journal.load()
    assert records[record.claim.uid].identities == ("whole", "gi-3")


def test_records_of_former_boots_are_removed(tmp_path: Path, record: ClaimRecord) -> None:
    """A reboot voids every record at once."""
    former = ClaimJournal(tmp_path, boot_id="former")
    former.begin(replace(record, boot_id="former"))
    journal = ClaimJournal(tmp_path, boot_id=record.boot_id)
    assert journal.load() == ({}, ())
    assert list(tmp_path.iterdir()) == []


def test_threads_do_not_disturb_each_other(
    journal: ClaimJournal, new_record: NewRecord, preparation: Preparation
) -> None:
    """Claims written at once by several threads are all complete."""

    def live(number: int) -> None:
        record = new_record(number)
        journal.begin(record)
        journal.step(record.claim.uid, f"mode-{number}")
        journal.step(record.claim.uid, f"gi-{number}")
        journal.finish(record.claim.uid, preparation)
        if number % 3 == 0:
            journal.releasing(record.claim.uid)
            journal.forget(record.claim.uid)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(live, range(60)))
    records, damages = journal.load()
    assert damages == ()
    assert sorted(record.identities[1] for record in records.values()) == sorted(
        f"gi-{number}" for number in range(60) if number % 3
    )


def test_a_journal_folder_that_is_none_is_named(tmp_path: Path, record: ClaimRecord) -> None:
    """A file where the folder should be: the error names it."""
    (tmp_path / "journal").write_text("in the way")
    journal = ClaimJournal(tmp_path / "journal", boot_id=record.boot_id)
    with pytest.raises(RecordError, match=f"{tmp_path}/journal: Not a directory"):
        journal.load()
    with pytest.raises(RecordError, match="cannot create journal"):
        journal.begin(record)


def test_boot_id_is_the_kernels(tmp_path: Path) -> None:
    """A UUID that stays the same; a file without one is refused, naming the file and what it holds."""
    assert read_boot_id() == read_boot_id()
    (tmp_path / "odd").write_text("../..\n")
    with pytest.raises(StartError, match=r"odd holds '\.\./\.\.'"):
        read_boot_id(tmp_path / "odd")
    with pytest.raises(StartError, match="cannot be read"):
        read_boot_id(tmp_path / "absent")


def test_grants_of_monitors_and_shares_are_recorded(
    journal: ClaimJournal, record: ClaimRecord
) -> None:
    """Whole GPUs, shares and monitors, which need no step, are records like any other."""
    grants = (
        Grant(device="a", pool="p", requests=("x", "y"), gpu="g", share_id="s"),
        Grant(device="m", pool="p", requests=("z",), gpu="g", monitor=True),
    )
    record = replace(record, grants=grants, steps=())
    journal.begin(record)
    journal.finish(record.claim.uid, Preparation(devices=(), edits=()))
    records, _ = journal.load()
    assert records[record.claim.uid].grants == grants
