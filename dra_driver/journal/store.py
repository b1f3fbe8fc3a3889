"""Claim records on disk: `<folder>/<boot id>/<claim uid>.jsonl`, append-only, one file per claim.

Nothing is cached: each transition reads the claim's own file, checks that it may come next, and appends one line. So claims
never wait for each other, and two plugin processes (a rolling upgrade) see the same records. A file is never rewritten:
fields that a newer release wrote stay as they are.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from dra_driver.journal import transitions
from dra_driver.journal.lines import Lines, line, read_lines, whole_blocks
from dra_driver.model.errors import RecordError, StartError
from dra_driver.model.names import CLAIM_UID, checked_claim_uid
from dra_driver.model.record import ClaimRecord, Preparation
from dra_driver.ports import Damage, JsonObject

_QUARANTINE = "quarantine"
_STEP_BYTES = 512
_GRANT_BYTES = 8 * 1024  # its part of the result: a driver's libraries are dozens of mounts
_SPARE_BYTES = 512  # left over in every file, so that `releasing` fits on a full disk
_FIXES = {
    errno.EACCES: "let this process write there",
    errno.EDQUOT: "raise the quota, or free space",
    errno.EEXIST: "the claim is recorded already: forget it before it begins anew",
    errno.ENOENT: "the claim is not recorded: begin it first",
    errno.ENOSPC: "free space on its filesystem",
    errno.EROFS: "remount its filesystem writable",
}


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
        self._sync = sync

    def load(self) -> tuple[dict[str, ClaimRecord], tuple[Damage, ...]]:
        """All records of this boot; a file that is damaged or cannot be read moves to the quarantine and is reported.

        It is reported by every later load of this boot too: a claim that was refused once is not unknown, and so free to
        be prepared again, after a mere restart.
        """
        with _naming(self._folder, "list"):
            self._remove_former_boots()
            paths = sorted(path for path in _entries(self._boot) if path.suffix == ".jsonl")
        records: dict[str, ClaimRecord] = {}
        damages = [self._damage(path) for path in sorted(_entries(self._boot / _QUARANTINE))]
        for path in paths:
            try:
                records[path.stem], _ = self._understood(path.stem, path.read_bytes())
            except FileNotFoundError:
                continue  # another instance of the plugin forgot the claim meanwhile
            except (OSError, RecordError) as error:
                damages.append(self._set_aside(path, error))
        return records, tuple(damages)

    def begin(self, record: ClaimRecord) -> None:
        """Durable when this returns, with room for the lines to come; a file has its name only once it is whole."""
        path = self._path(record.claim.uid)
        entry = transitions.intent(record)
        if record.boot_id != self._boot_id or transitions.follow(None, entry) != record:
            raise RecordError(
                f"journal {path}: claim {record.claim} of boot {record.boot_id} cannot begin:"
                f" only one that nothing was done for, and in boot {self._boot_id}"
            )
        draft = path.with_suffix(".draft")
        with _naming(path, "create"):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._boot.mkdir(mode=0o700, exist_ok=True)
            draft.unlink(missing_ok=True)  # from a crash while this same claim began
            try:
                self._write_draft(draft, line(entry), _reserve(record))
                os.link(draft, path)
            finally:
                draft.unlink(missing_ok=True)

    def step(self, uid: str, identity: str) -> None:
        """Survives a killed process; RecordError unless a step is missing."""
        self._append(uid, transitions.step(identity), durable=False)

    def finish(self, uid: str, preparation: Preparation) -> None:
        """Durable when this returns; RecordError unless every step is done."""
        self._append(uid, transitions.result(preparation), durable=True)

    def releasing(self, uid: str) -> None:
        """Survives a killed process; saying it again is fine."""
        self._append(uid, transitions.releasing(), durable=False)

    def forget(self, uid: str) -> None:
        """The claim has no file any more; no file is fine."""
        path = self._path(uid)
        with _naming(path, "remove"):
            path.unlink(missing_ok=True)

    def _path(self, uid: str) -> Path:
        return self._boot / f"{checked_claim_uid(uid)}.jsonl"

    def _write_draft(self, draft: Path, first_line: bytes, reserve_bytes: int) -> None:
        with _opened(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
            os.posix_fallocate(descriptor, 0, reserve_bytes)
            _write(descriptor, first_line, 0)
            self._sync(descriptor)

    def _append(self, uid: str, entry: JsonObject, *, durable: bool) -> None:
        path = self._path(uid)
        with _naming(path, "append to"), _opened(path, os.O_RDWR) as descriptor:
            size_bytes = os.fstat(descriptor).st_size
            record, lines = self._understood(uid, os.pread(descriptor, size_bytes, 0))
            if transitions.follow(record, entry) == record:
                return
            try:
                self._write_line(descriptor, lines.following(entry), lines.end, durable=durable)
            except OSError:
                with suppress(OSError):  # nobody may read later what the caller is told has failed
                    os.ftruncate(descriptor, size_bytes)
                    _write(descriptor, bytes(size_bytes - lines.end), lines.end)
                raise

    def _write_line(self, descriptor: int, text: bytes, end: int, *, durable: bool) -> None:
        needed_bytes = whole_blocks(end + len(text) + _SPARE_BYTES)
        if needed_bytes > os.fstat(descriptor).st_size:
            os.posix_fallocate(descriptor, 0, needed_bytes)
        _write(descriptor, text, end)
        if durable:
            self._sync(descriptor)

    def _understood(self, uid: str, data: bytes) -> tuple[ClaimRecord, Lines]:
        lines = read_lines(data)
        record: ClaimRecord | None = None
        for entry in lines.entries:
            record = transitions.follow(record, entry)
        if record is None:
            raise RecordError("it holds no intent")
        if (record.claim.uid, record.boot_id) != (uid, self._boot_id):
            raise RecordError(f"it speaks of claim {record.claim.uid} in boot {record.boot_id}")
        return record, lines

    def _remove_former_boots(self) -> None:
        for path in _entries(self._folder):
            if path.is_dir() and path.name != self._boot_id:
                shutil.rmtree(
                    path, ignore_errors=True
                )  # nobody reads it; the next start tries again

    def _damage(self, place: Path) -> Damage:
        return Damage(
            place.stem,
            str(place),
            f"the record of claim {place.stem} is damaged and was set aside as {place}",
        )

    def _set_aside(self, path: Path, error: Exception) -> Damage:
        quarantine = self._boot / _QUARANTINE
        message = f"the record of claim {path.stem} is damaged: {error}"
        try:
            quarantine.mkdir(mode=0o700, exist_ok=True)
            names = (quarantine / f"{path.stem}.{number}" for number in count(1))
            place = next(name for name in names if not name.exists())
            path.rename(place)
        except OSError as failure:
            return Damage(path.stem, str(path), f"{message}; it cannot be set aside: {failure}")
        return Damage(path.stem, str(place), f"{message}; set aside as {place}")


def _reserve(record: ClaimRecord) -> int:
    intent_bytes = len(line(transitions.intent(record)))
    later_bytes = _STEP_BYTES * len(record.steps) + _GRANT_BYTES * len(record.grants)
    return whole_blocks(intent_bytes + later_bytes + _SPARE_BYTES)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _write(descriptor: int, data: bytes, offset: int) -> None:
    written = os.pwrite(descriptor, data, offset)
    if written != len(data):
        raise OSError(errno.EIO, f"only {written} of {len(data)} bytes were written")


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _naming(path: Path, verb: str) -> Iterator[None]:
    """Failures inside become RecordErrors that name the file and the fix."""
    try:
        yield
    except RecordError as error:
        raise RecordError(f"journal {path}: {error}") from error
    except OSError as error:
        fix = _FIXES.get(error.errno or 0, "look for disk errors in the kernel log")
        raise RecordError(f"cannot {verb} journal {path}: {error.strerror}; {fix}") from error
