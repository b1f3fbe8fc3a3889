import json
import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dra_driver.cdi.folder import CdiFolder
from dra_driver.cdi.spec import claim_spec, shared_spec
from dra_driver.model.edits import ContainerEdits, DeviceNode, SharedEdits
from dra_driver.model.errors import NameInvalid, RecordError
from dra_driver.model.names import cdi_device_name, shared_cdi_id
from dra_driver.ports import CdiStore

UID = "8c3b1f5e-0f5c-4a5e-9d36-0b7a3d1e2f4a"
OTHER = "8c3b1f5e-0f5c-4a5e-9d36-000000000000"
EDITS = ContainerEdits(env=(("A", "1"),), device_nodes=(DeviceNode(path="/dev/nvidia0"),))
SHARED = SharedEdits(name="nvidia-1", edits=EDITS)
DEVICES = ((cdi_device_name(UID, "gpu-0"), EDITS),)
NOTE = '{"crc":"00000000","entry":{"name":"\\u00fc"}}'
FILE = f"gpu.dra-driver.dev-claim_{UID}.json"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that holds 8 KiB (skips where this process may not mount)."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def names(folder: Path) -> list[str]:
    """All entries of the folder."""
    return sorted(path.name for path in folder.iterdir())


def test_shared_edits_have_a_file_of_their_own(tmp_path: Path) -> None:
    """Written once, beside the claims' files and never taken for one; a file that is lost is written again."""
    folder = tmp_path / "var" / "cdi"
    store: CdiStore = CdiFolder(folder)
    assert not store.shares(shared_cdi_id(SHARED.name))
    store.share(SHARED)
    written = folder / "gpu.dra-driver.dev-driver_nvidia-1.json"
    assert json.loads(written.read_bytes()) == shared_spec(SHARED)
    number = written.stat().st_ino
    store.share(SHARED)
    assert written.stat().st_ino == number
    assert store.shares("gpu.dra-driver.dev/driver=nvidia-1")
    assert store.claims() == frozenset()
    written.unlink()
    store.share(SHARED)
    assert names(folder) == [written.name]


def test_old_shared_edits_go_when_nobody_uses_them(tmp_path: Path) -> None:
    """Not while a record names them, not within the hour after somebody shared them, and no claim's file ever."""
    store: CdiStore = CdiFolder(tmp_path)
    store.write(UID, DEVICES)
    kept, fresh, old = (replace(SHARED, name=f"nvidia-{name}") for name in ("kept", "fresh", "old"))
    for shared in (kept, fresh, old):
        store.share(shared)
    for path in tmp_path.iterdir():
        if "fresh" not in path.name:
            os.utime(path, (0, 0))
    used = {shared_cdi_id(kept.name)}
    store.sweep(used)
    assert [store.shares(shared_cdi_id(one.name)) for one in (kept, fresh, old)] == [1, 1, 0]
    os.utime(tmp_path / f"gpu.dra-driver.dev-driver_{fresh.name}.json", (0, 0))
    store.share(fresh)
    store.sweep(used)
    assert store.shares(shared_cdi_id(fresh.name))
    assert store.claims() == {UID}
    CdiFolder(tmp_path / "missing").sweep(used)


def test_one_file_for_each_claim(tmp_path: Path) -> None:
    """Written, found, replaced and removed by claim UID; the folder is made where it is missing; nothing else lies there."""
    folder = tmp_path / "var" / "cdi"
    store: CdiStore = CdiFolder(folder)
    assert store.claims() == frozenset()
    store.write(UID, DEVICES)
    store.write(OTHER, DEVICES)
    assert names(folder) == [FILE.replace(UID, OTHER), FILE]
    assert json.loads((folder / FILE).read_bytes()) == claim_spec(DEVICES)
    assert store.claims() == {UID, OTHER}
    store.write(UID, [("a", EDITS)])
    assert store.holds(UID, [("a", EDITS)])
    store.remove(UID)
    store.remove(UID)
    assert store.claims() == {OTHER}
    assert names(folder) == [FILE.replace(UID, OTHER)]


def test_runtimes_may_read_it(tmp_path: Path) -> None:
    """The folder that we make is 0755."""
    CdiFolder(tmp_path / "cdi").write(UID, DEVICES)
    assert stat.S_IMODE((tmp_path / "cdi").stat().st_mode) == 0o755


def test_holds_compares_content(tmp_path: Path) -> None:
    """Layout does not matter; a missing, foreign, torn or different file does not hold what was asked."""
    folder = CdiFolder(tmp_path)
    path = tmp_path / FILE
    assert not folder.holds(UID, DEVICES)
    folder.write(UID, DEVICES)
    assert folder.holds(UID, DEVICES)
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=4))
    assert folder.holds(UID, DEVICES)
    assert not folder.holds(UID, [("a", EDITS)])
    assert not folder.holds(UID, [(DEVICES[0][0], replace(EDITS, env=()))])
    for content in (b"", b"{", b"[]", b"\xff", path.read_bytes()[:-9]):
        path.write_bytes(content)
        assert not folder.holds(UID, DEVICES)


def test_a_note_is_kept_beside_the_devices(tmp_path: Path) -> None:
    """The note is read back, is part of what a file holds, and changes with it; files without one have None."""
    folder: CdiStore = CdiFolder(tmp_path)
    assert folder.note(UID) is None
    folder.write(UID, DEVICES)
    assert folder.note(UID) is None
    folder.write(UID, DEVICES, NOTE)
    assert folder.note(UID) == NOTE
    assert folder.holds(UID, DEVICES, NOTE)
    assert not folder.holds(UID, DEVICES)
    assert not folder.holds(UID, DEVICES, "another")
    folder.remove(UID)
    assert folder.note(UID) is None


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"{}", b'{"annotations":[]}',
        b'{"annotations":{"gpu.dra-driver.dev/record":7}}', b'{"annotations":{"other/record":"x"}}',
    ],
)  # fmt: skip
def test_a_file_that_is_not_ours_has_no_note(tmp_path: Path, content: bytes) -> None:
    """Whatever stands in the file's place, it holds nothing of ours, has no note, and is written over."""
    folder = CdiFolder(tmp_path)
    (tmp_path / FILE).write_bytes(content)
    assert folder.note(UID) is None
    assert not folder.holds(UID, DEVICES, NOTE)
    folder.write(UID, DEVICES, NOTE)
    assert folder.note(UID) == NOTE


def test_a_file_appears_by_rename_within_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runtimes see a rename from a hidden name in the same folder, and ignore that name: no .json, no .yaml, a dot first."""
    renames: list[tuple[Path, Path]] = []
    replace_path = Path.replace

    def spy(self: Path, target: Path) -> Path:
        renames.append((self, target))
        return replace_path(self, target)

    monkeypatch.setattr(Path, "replace", spy)
    CdiFolder(tmp_path).write(UID, DEVICES)
    ((draft, path),) = renames
    assert (draft.parent, path) == (tmp_path, tmp_path / FILE)
    assert draft.name.startswith(".")
    assert draft.suffix not in {".json", ".yaml"}


def test_a_process_that_starts_does_not_fail_the_write_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second process removes drafts when it starts; a draft that the first one is just going to rename is written again."""
    renames = 0
    replace_path = Path.replace

    def start_another(self: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames == 1:
            CdiFolder(tmp_path)
        return replace_path(self, target)

    monkeypatch.setattr(Path, "replace", start_another)
    folder = CdiFolder(tmp_path)
    folder.write(UID, DEVICES)
    assert (renames, folder.holds(UID, DEVICES), names(tmp_path)) == (2, True, [FILE])


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Specs of others are neither listed nor removed; our own drafts, left by a killed process, are removed at the start."""
    others = ["nvidia.yaml", "gpu.dra-driver.dev-claim_x.json", f".{FILE}.swp", f"{FILE}.bak"]
    drafts = [f".gpu.dra-driver.dev-claim_{UID}.draft"]
    for name in others + drafts:
        (tmp_path / name).write_text("{")
    assert CdiFolder(tmp_path).claims() == frozenset()
    assert names(tmp_path) == sorted(others)


def test_what_a_runtime_would_refuse_is_not_written(tmp_path: Path) -> None:
    """A wrong value leaves the former file in place, and no UID becomes a path that is no UUID."""
    folder = CdiFolder(tmp_path)
    folder.write(UID, DEVICES)
    with pytest.raises(NameInvalid):
        folder.write(UID, [("a", ContainerEdits(env=(("A", "x\ny"),)))])
    assert folder.holds(UID, DEVICES)
    for act in (folder.remove, lambda uid: folder.write(uid, DEVICES)):
        with pytest.raises(NameInvalid):
            act("../passwd")


def test_a_full_disk_is_said_and_leaves_nothing(disk: Path) -> None:
    """The error names file and fix; the former file holds; with space again, writing works and removing always did."""
    folder = CdiFolder(disk)
    folder.write(UID, DEVICES)
    (disk / "filler").write_bytes(bytes(4096))
    with pytest.raises(RecordError, match=rf"{FILE}: No space left on device; .* have space"):
        folder.write(UID, [("a", EDITS)])
    assert names(disk) == ["filler", FILE]
    assert folder.holds(UID, DEVICES)
    folder.remove(UID)
    folder.write(UID, [("a", EDITS)])


def test_a_read_only_folder_is_said(disk: Path) -> None:
    """Reading goes on, writing and removing fail by name, and a leftover draft does not keep the process from starting."""
    CdiFolder(disk).write(UID, DEVICES)
    (disk / f".gpu.dra-driver.dev-claim_{OTHER}.draft").touch()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    folder = CdiFolder(disk)
    assert folder.claims() == {UID}
    assert folder.holds(UID, DEVICES)
    with pytest.raises(RecordError, match=r"cannot write CDI file .*Read-only file system"):
        folder.write(UID, DEVICES)
    with pytest.raises(RecordError, match="cannot remove"):
        folder.remove(UID)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    """A file in the folder's place is an error that names it."""
    (tmp_path / "cdi").touch()
    folder = CdiFolder(tmp_path / "cdi")
    with pytest.raises(RecordError, match=f"cannot write CDI file {tmp_path}/cdi/"):
        folder.write(UID, DEVICES)
    with pytest.raises(RecordError, match="cannot list"):
        folder.claims()
