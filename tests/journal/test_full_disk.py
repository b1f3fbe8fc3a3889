import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dra_driver.journal.lines import BLOCK_BYTES
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
    writes: tuple[Callable[[], None], ...] = (
        lambda: journal.begin(absent),
        lambda: journal.step(record.claim.uid, "whole"),
        lambda: journal.forget(record.claim.uid),
    )
    for write in writes:
        with pytest.raises(RecordError, match=r"Read-only file system; remount"):
            write()
