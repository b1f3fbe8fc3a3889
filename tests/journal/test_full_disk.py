import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dra_driver.journal import transitions
from dra_driver.journal.lines import BLOCK_BYTES, line
from dra_driver.journal.store import ClaimJournal
from dra_driver.model.errors import RecordError
from dra_driver.model.record import ClaimRecord, Preparation


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that holds 64 KiB (skips where this process may not mount)."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> None:
    """Leave not one byte free."""
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_bsize))
    assert os.statvfs(disk).f_bavail == 0


def files(disk: Path) -> list[str]:
    """Everything below the journal's folder that is a file."""
    return sorted(path.name for path in (disk / "journal").rglob("*") if path.is_file())


def test_a_claim_that_began_lives_to_its_end_on_a_full_disk(
    disk: Path, new_record: Callable[[int], ClaimRecord], preparation: Preparation
) -> None:
    """Step, finish, releasing and forget need no space; another claim is refused, leaves nothing, and begins later."""
    first, second = new_record(1), new_record(2)
    journal = ClaimJournal(disk / "journal", boot_id=first.boot_id)
    journal.begin(first)
    fill(disk)
    with pytest.raises(RecordError, match="No space left on device; free space"):
        journal.begin(second)
    assert files(disk) == [f"{first.claim.uid}.jsonl"]
    journal.step(first.claim.uid, "whole")
    journal.step(first.claim.uid, "gi-3")
    journal.finish(first.claim.uid, preparation)
    journal.releasing(first.claim.uid)
    records, damages = journal.load()
    assert damages == ()
    assert records[first.claim.uid].preparation == preparation
    assert records[first.claim.uid].releasing
    journal.forget(first.claim.uid)
    journal.begin(second)
    assert files(disk) == [f"{second.claim.uid}.jsonl"]


def test_a_result_too_large_for_the_disk_changes_nothing(
    disk: Path, record: ClaimRecord, preparation: Preparation
) -> None:
    """A result beyond the reserved space fails on a full disk; the claim stays unfinished, and can still be released."""
    record = replace(record, steps=())
    name, edits = preparation.edits[0]
    large = replace(edits, mounts=edits.mounts * (BLOCK_BYTES // 50))
    journal = ClaimJournal(disk / "journal", boot_id=record.boot_id)
    journal.begin(record)
    fill(disk)
    with pytest.raises(RecordError, match="No space left"):
        journal.finish(record.claim.uid, replace(preparation, edits=((name, large),)))
    assert journal.load() == ({record.claim.uid: record}, ())
    journal.releasing(record.claim.uid)
    assert journal.load() == ({record.claim.uid: replace(record, releasing=True)}, ())


def test_what_is_left_over_is_enough_to_release(
    disk: Path, record: ClaimRecord, preparation: Preparation
) -> None:
    """A result that takes all the space there is but what is set aside: on a full disk the claim is still released."""
    record = replace(record, steps=())
    uid = record.claim.uid
    journal = ClaimJournal(disk / "journal", boot_id=record.boot_id)
    journal.begin(record)
    path = disk / "journal" / record.boot_id / f"{uid}.jsonl"
    name, edits = preparation.edits[0]

    def padded(length: int) -> Preparation:
        return replace(preparation, edits=((name, replace(edits, env=(("A", "x" * length),))),))

    intent_bytes = len(path.read_bytes().rstrip(b"\0"))
    spare_bytes = BLOCK_BYTES - intent_bytes - len(line(transitions.result(padded(0)))) - 512
    fill(disk)
    with pytest.raises(RecordError, match="No space left"):
        journal.finish(uid, padded(spare_bytes + 1))
    journal.finish(uid, padded(spare_bytes))
    journal.releasing(uid)
    records, damages = journal.load()
    assert (records[uid].releasing, damages) == (True, ())


def test_a_record_is_rebuilt_when_there_is_space(
    disk: Path, new_record: Callable[[int], ClaimRecord]
) -> None:
    """On a full disk the damaged file still moves aside, and rebuilding fails without a trace; with space it works."""
    record = new_record(1)
    uid = record.claim.uid
    journal = ClaimJournal(disk / "journal", boot_id=record.boot_id)
    journal.begin(record)
    path = disk / "journal" / record.boot_id / f"{uid}.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    fill(disk)
    _, (damage,) = journal.load()
    assert damage.salvaged == record
    left = [f"{uid}.1", "filler"]
    with pytest.raises(RecordError, match=r"cannot rebuild journal .*No space left"):
        journal.rebuild(uid, journal.note(record))
    assert sorted(path.name for path in disk.rglob("*") if path.is_file()) == left
    (disk / "filler").unlink()
    assert journal.rebuild(uid, journal.note(record)) == record
    assert journal.load() == ({uid: record}, ())


def test_a_read_only_disk_is_read(disk: Path, new_record: Callable[[int], ClaimRecord]) -> None:
    """Records load, damage is reported where it lies, and every write says that the file system is read-only."""
    record, broken, absent = (new_record(number) for number in range(3))
    journal = ClaimJournal(disk / "journal", boot_id=record.boot_id)
    journal.begin(record)
    journal.begin(broken)
    path = disk / "journal" / record.boot_id / f"{broken.claim.uid}.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    records, (damage,) = journal.load()
    assert records == {record.claim.uid: record}
    assert (damage.claim_uid, damage.quarantine) == (broken.claim.uid, str(path))
    assert "cannot be set aside" in damage.message
    assert damage.salvaged == broken
    writes: tuple[Callable[[], object], ...] = (
        lambda: journal.begin(absent),
        lambda: journal.step(record.claim.uid, "whole"),
        lambda: journal.forget(record.claim.uid),
        lambda: journal.rebuild(absent.claim.uid, journal.note(absent)),
    )
    for write in writes:
        with pytest.raises(RecordError, match=r"Read-only file system; remount"):
            write()


def test_a_disk_that_fails_is_no_promise(disk: Path, record: ClaimRecord) -> None:
    """EIO, ENOSPC or EDQUOT from a sync (that is where network and thin disks tell): named, with its fix; the claim can be forgotten."""
    uid = record.claim.uid
    codes: list[int] = []

    def sync(descriptor: int) -> None:
        os.fdatasync(descriptor)
        raise OSError(codes[0], os.strerror(codes[0]))

    journal = ClaimJournal(disk / "journal", boot_id=record.boot_id, sync=sync)
    fixes = {
        errno.EIO: "look for disk errors",
        errno.ENOSPC: "free",
        errno.EDQUOT: "raise the quota",
    }
    for code, fix in fixes.items():
        codes[:] = [code]
        journal.begin(record)
        with pytest.raises(RecordError, match=rf"cannot sync .*{os.strerror(code)}; {fix}"):
            journal.sync(uid)
        journal.forget(uid)
        assert files(disk) == []


def test_writes_that_fail_leave_the_record_as_it_was(
    disk: Path, record: ClaimRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that the kernel refuses is an error with the file's name; no later line follows a half one."""
    journal = ClaimJournal(disk / "journal", boot_id=record.boot_id)
    journal.begin(record)

    def fail(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(RecordError, match=r"cannot append to journal .*Input/output error"):
            journal.step(record.claim.uid, "whole")
    assert journal.read(record.claim.uid) == record
    journal.step(record.claim.uid, "whole")
