"""Journal files and CDI files that somebody else has written: read, or refused for their own claim."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from random import Random

from dra_driver.cdi.folder import CdiFolder
from dra_driver.cdi.spec import NOTE_ANNOTATION, claim_spec
from dra_driver.journal.lines import BLOCK_BYTES, intact_entries, line
from dra_driver.journal.store import ClaimJournal
from dra_driver.model.edits import ContainerEdits
from dra_driver.model.errors import RecordError
from dra_driver.ports import JsonObject
from tests.fuzz.mutation import mutated, mutated_bytes

_GOLDEN = Path(__file__).parents[1] / "journal" / "golden"
_ENTRIES = intact_entries((_GOLDEN / "v1.jsonl").read_bytes())
(_NOTE,) = intact_entries((_GOLDEN / "note-v1.jsonl").read_bytes())
_CLAIM = _ENTRIES[0]
_UID: str = _CLAIM["claim"]["uid"]
_BOOT: str = _CLAIM["bootId"]
_DEVICES = (("a", ContainerEdits(env=(("A", "1"),))),)


def fuzz_files(inputs: Iterable[Random]) -> int:
    """Never silence: a file is a record or a damage, of its own claim. Returns how many were records."""
    understood = 0
    with tempfile.TemporaryDirectory(prefix="dra-") as name:
        folder = Path(name)
        journal = ClaimJournal(folder / "journal", boot_id=_BOOT, sync=lambda _: None)
        cdi = CdiFolder(folder / "cdi")
        cdi.write(_UID, _DEVICES)
        (cdi_file,) = (folder / "cdi").iterdir()
        record_file = folder / "journal" / _BOOT / f"{_UID}.jsonl"
        record_file.parent.mkdir(parents=True)
        for random in inputs:
            record_file.write_bytes(_journal_bytes(random))
            understood += _check_record(journal)
            cdi_file.write_bytes(_cdi_bytes(random))
            cdi.holds(_UID, _DEVICES, "note")
            _check_note(journal, cdi.note(_UID))
    return understood


def _check_record(journal: ClaimJournal) -> int:
    records, damages = journal.load()
    assert [*records, *(damage.claim_uid for damage in damages)] == [_UID]
    assert all(record.claim.uid == _UID for record in records.values())
    assert all(damage.salvaged is None or damage.salvaged.claim.uid == _UID for damage in damages)
    assert journal.records() == records
    journal.forget(_UID)
    return len(records)


def _check_note(journal: ClaimJournal, note: str | None) -> None:
    if note is None:
        return
    try:
        record = journal.rebuild(_UID, note)
    except RecordError:
        assert journal.load() == ({}, ())
    else:
        assert journal.load() == ({_UID: record}, ())
        journal.forget(_UID)


def _journal_bytes(random: Random) -> bytes:
    """Lines with right checksums over odd entries, wrong bytes, or both, in a file of the right size or not."""
    entries = list(_ENTRIES[: random.randrange(len(_ENTRIES) + 1)])
    if entries and random.random() < 0.7:
        place = random.randrange(len(entries))
        entries[place] = mutated(random, entries[place])
    if random.random() < 0.1:
        random.shuffle(entries)
    text = b"".join(map(line, entries))
    if random.random() < 0.3:
        text = mutated_bytes(random, text)
    return text.ljust(BLOCK_BYTES, b"\0") if random.random() < 0.95 else text


def _cdi_bytes(random: Random) -> bytes:
    note: JsonObject = mutated(random, _NOTE) if random.random() < 0.8 else _NOTE
    spec = claim_spec(_DEVICES) | {
        "annotations": {NOTE_ANNOTATION: line(note).decode().removesuffix("\n")}
    }
    if random.random() < 0.3:
        spec = mutated(random, spec)
    text = json.dumps(spec).encode()
    return mutated_bytes(random, text) if random.random() < 0.2 else text
