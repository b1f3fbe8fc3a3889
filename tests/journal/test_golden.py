"""Files as releases write them, byte for byte: what stands in `golden/` is read by every release to come.

`v1.jsonl`, `v1-hooks` and `note-v1` are this release's own: a claim without hooks and
numbers is written as before there were any. `v1-older` lacks the fields that have defaults, `v1-newer` has fields that this
release does not know, everywhere; `v2` is of a format that it does not read. A release that adds a field adds a file.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from dra_driver.journal import transitions
from dra_driver.journal.lines import BLOCK_BYTES, line, read_lines
from dra_driver.journal.store import ClaimJournal
from dra_driver.model.edits import DeviceNode, Hook
from dra_driver.model.errors import RecordNewer
from dra_driver.model.record import ClaimRecord, Preparation

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> bytes:
    """The lines of that file."""
    return (GOLDEN / name).read_bytes()


def note(name: str) -> str:
    """The note of that file."""
    return golden(name).decode().removesuffix("\n")


@pytest.fixture
def states(record: ClaimRecord, preparation: Preparation) -> list[ClaimRecord]:
    """What each line of a golden file leads to."""
    stepped = replace(record, identities=("whole",))
    done = replace(record, identities=("whole", "gi-3"))
    finished = replace(done, preparation=preparation)
    return [record, stepped, done, finished, replace(finished, releasing=True)]


def place(folder: Path, record: ClaimRecord, text: bytes) -> ClaimJournal:
    """A journal whose file for that claim was written by somebody else."""
    path = folder / record.boot_id / f"{record.claim.uid}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.ljust(BLOCK_BYTES, b"\0"))
    return ClaimJournal(folder, boot_id=record.boot_id)


def test_this_release_writes_its_golden_files(
    record: ClaimRecord, preparation: Preparation, states: list[ClaimRecord], tmp_path: Path
) -> None:
    """Every transition, and the note, to the byte; they may not change until FORMAT_VERSION does."""
    entries = (
        transitions.intent(record),
        transitions.step("whole"),
        transitions.step("gi-3"),
        transitions.result(preparation),
        transitions.releasing(),
    )
    assert b"".join(map(line, entries)) == golden("v1.jsonl")
    journal = ClaimJournal(tmp_path, boot_id=record.boot_id)
    assert journal.note(states[2]) == note("note-v1.jsonl")


@pytest.mark.parametrize("name", ["v1.jsonl", "v1-newer.jsonl"])
def test_each_transition_is_read(name: str, tmp_path: Path, states: list[ClaimRecord]) -> None:
    """After each line the record is in the state that this line brought about, be it of this release or of the next."""
    lines = golden(name).splitlines(keepends=True)
    assert len(lines) == len(states)
    for number, state in enumerate(states, start=1):
        journal = place(tmp_path, state, b"".join(lines[:number]))
        assert journal.load() == ({state.claim.uid: state}, ())


def test_hooks_and_numbers_are_written_where_there_are_any(
    tmp_path: Path, record: ClaimRecord, preparation: Preparation
) -> None:
    """An outcome with hooks and a node that the host lacks, to the byte, and back."""
    ((name, edits),) = preparation.edits
    hook = Hook(
        path="/usr/bin/nvidia-cdi-hook",
        args=("nvidia-cdi-hook", "update-ldcache", "--folder", "/usr/lib"),
        env=(("NVIDIA_CTK_DEBUG", "false"),),
    )
    node = DeviceNode(path="/dev/nvidia-caps/nvidia-cap12", numbers=(236, 12))
    hooked = replace(
        preparation, edits=((name, replace(edits, device_nodes=(node,), hooks=(hook,))),)
    )
    entries = (transitions.intent(replace(record, steps=())), transitions.result(hooked))
    assert b"".join(map(line, entries)) == golden("v1-hooks.jsonl")
    journal = place(tmp_path, record, golden("v1-hooks.jsonl"))
    assert journal.read(record.claim.uid) == replace(record, steps=(), preparation=hooked)


def test_what_an_older_release_wrote_is_read(
    tmp_path: Path, record: ClaimRecord, preparation: Preparation
) -> None:
    """Fields that it lacked have the values that it meant."""
    (grant,), (device,) = record.grants, preparation.devices
    ((name, edits),) = preparation.edits
    nodes = tuple(replace(node, host_path=None) for node in edits.device_nodes)
    expected = replace(
        record,
        grants=(replace(grant, profile=None, placement=None),),
        steps=(),
        preparation=Preparation(
            devices=(replace(device, hardware=()),),
            edits=((name, replace(edits, device_nodes=nodes)),),
        ),
    )
    journal = place(tmp_path, record, golden("v1-older.jsonl"))
    assert journal.read(record.claim.uid) == expected


def test_what_a_newer_release_wrote_survives_this_one(
    tmp_path: Path, record: ClaimRecord, states: list[ClaimRecord], preparation: Preparation
) -> None:
    """This release goes on with a record of the next one, and all that it does not understand is still there afterwards."""
    uid = record.claim.uid
    begun = b"".join(golden("v1-newer.jsonl").splitlines(keepends=True)[:3])
    journal = place(tmp_path, record, begun)
    journal.finish(uid, preparation)
    journal.releasing(uid)
    assert journal.read(uid) == states[-1]
    path = tmp_path / record.boot_id / f"{uid}.jsonl"
    assert path.read_bytes().startswith(begun)


@pytest.mark.parametrize("name", ["note-v1.jsonl", "note-v1-newer.jsonl"])
def test_each_note_makes_the_record(name: str, tmp_path: Path, states: list[ClaimRecord]) -> None:
    """A record is rebuilt from the notes of this release and the next; unknown fields go into the journal with it."""
    done = states[2]
    journal = ClaimJournal(tmp_path, boot_id=done.boot_id)
    assert journal.rebuild(done.claim.uid, note(name)) == done
    path = tmp_path / done.boot_id / f"{done.claim.uid}.jsonl"
    (intent, *steps) = read_lines(path.read_bytes()).entries
    assert [step["identity"] for step in steps] == list(done.identities)
    assert ("new" in intent) == ("newer" in name)
    assert ("new" in intent["grants"][0]) == ("newer" in name)


def test_another_format_is_left_to_its_release(tmp_path: Path, record: ClaimRecord) -> None:
    """A format of the future is neither damaged nor touched; its note rebuilds nothing."""
    uid = record.claim.uid
    journal = place(tmp_path, record, golden("v2.jsonl"))
    _, (damage,) = journal.load()
    assert (damage.newer, damage.salvaged) == (True, None)
    path = tmp_path / record.boot_id / f"{uid}.jsonl"
    assert path.read_bytes().rstrip(b"\0") == golden("v2.jsonl")
    path.unlink()
    with pytest.raises(RecordNewer, match="newer release"):
        journal.rebuild(uid, note("v2.jsonl"))
