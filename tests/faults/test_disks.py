"""A plugin whose records and CDI files are on a disk that is full, or read-only.

The disk is a small tmpfs in a mount namespace of the plugin's own: no mount outlives it. The test looks at it through /proc.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dra_driver.ports import JsonObject
from tests.faults.cluster import Cluster, serving_cluster
from tests.faults.forks import Forks, forking
from tests.faults.node import Node, short_folder

NAME = "gpu-0000-1b-00-0"
PARTITIONS = tuple(f"{NAME}-mig-1g-10gb-{start}" for start in (6, 5, 4))
SIZE_BYTES = 256 * 1024
PAGE_BYTES = 4096


class Disk:
    """The file system under a node's `disk` folder, in the namespace of the process with that id."""

    def __init__(self, pid: int, folder: Path) -> None:
        self._pid = pid
        self._folder = folder
        self.seen = Path(f"/proc/{pid}/root{folder}")

    def mount(self, *arguments: str) -> None:
        """Do inside what the program `mount` does with these arguments."""
        inside = ("nsenter", f"--target={self._pid}", "--mount", "--", "mount", *arguments)
        done = subprocess.run(inside, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def remount(self, how: str) -> None:
        """`ro` or `rw`, all of it; only while nobody has a file open for writing."""
        self.mount("-o", f"remount,{how}", str(self._folder))

    def remount_claims(self, how: str) -> None:
        """`ro` or `rw`, records and CDI files alone: a plugin that runs holds its locks beside them."""
        for name in ("data/claims", "cdi"):
            path = str(self._folder / name)
            self.mount("--bind", path, path)
            self.mount("-o", f"remount,bind,{how}", path)

    def fill(self, *, but_bytes: int = 0) -> None:
        """Leave just so much."""
        self.empty()
        free = os.statvfs(self.seen)
        filler = bytes(free.f_bavail * free.f_bsize - but_bytes)
        (self.seen / "filler").write_bytes(filler)

    def empty(self) -> None:
        """Take away what filled it."""
        (self.seen / "filler").unlink(missing_ok=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for a node, and one for its disk."""
    with short_folder() as path:
        (path / "disk").mkdir()
        yield path


@pytest.fixture(scope="session")
def in_namespace() -> tuple[str, ...]:
    """The beginning of a command that runs in a mount namespace of its own (skips where there can be none)."""
    command = ("unshare", "--mount", "--propagation", "private")
    tried = subprocess.run((*command, "true"), capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no mount namespace can be made here: {tried.stderr.strip()}")
    return command


@pytest.fixture
async def private_forks(in_namespace: tuple[str, ...]) -> AsyncIterator[Forks]:
    """Plugins in a mount namespace of their own, which is there: only who is in it can have answered."""
    async with forking(*in_namespace) as forks:
        told = await forks.start(["version"], Path(os.devnull))
        assert await told.wait() == 0
        yield forks


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """An API server."""
    async with serving_cluster("n") as running:
        yield running


@pytest.fixture
def disk(folder: Path, private_forks: Forks) -> Disk:
    """An empty one."""
    disk = Disk(private_forks.pid, folder / "disk")
    disk.mount("-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(folder / "disk"))
    return disk


@pytest.fixture
def idle(folder: Path, disk: Disk, cluster: Cluster, private_forks: Forks) -> Node:
    """A node on which no plugin has been yet."""
    return Node(folder, "8xh100-80", cluster, private_forks, disk=disk.seen)


@pytest.fixture
async def node(idle: Node) -> Node:
    """A node whose plugin serves, and has published."""
    await idle.start()
    assert await idle.settles() == []
    return idle


@pytest.fixture
async def claims(cluster: Cluster) -> list[JsonObject]:
    """Three partitions of a GPU."""
    return [await cluster.new_claim(device) for device in PARTITIONS]


async def all_is_well_again(node: Node, claims: list[JsonObject]) -> None:
    """With space, every claim can be prepared, and nothing is left when all are given back."""
    assert [await node.prepare(claim) for claim in claims] == ["", "", ""]
    assert await node.settles() == []
    assert [await node.unprepare(claim) for claim in claims] == ["", "", ""]
    assert await node.settles() == []
    assert list(node.cdi_dir.iterdir()) == []
    assert node.backend.read("0000:1b:00.0").instances == ()


async def test_what_is_held_is_given_back_on_a_full_disk(
    node: Node, disk: Disk, cluster: Cluster, claims: list[JsonObject]
) -> None:
    """Without one byte: prepare says which file and what to do, replay and unprepare work, and all is well with space again."""
    held, other, _ = claims
    assert await node.prepare(held) == ""
    disk.fill()
    error = await node.prepare(other)
    assert f"journal {node.data_dir}" in error
    assert "No space left on device; free space on its filesystem" in error
    assert await node.prepare(held) == ""
    assert await node.wrongs(settled=True) == []
    assert await node.unprepare(held) == ""
    assert await node.wrongs(settled=True) == []
    disk.empty()
    await cluster.reuse(held)
    await all_is_well_again(node, claims)


async def test_a_plugin_that_crashes_on_a_full_disk_starts_and_gives_back(
    node: Node, disk: Disk, claims: list[JsonObject]
) -> None:
    """Its successor finds no byte, and still answers the replay, and gives the claim back."""
    held, *_ = claims
    assert await node.prepare(held) == ""
    disk.fill()
    await node.kill()
    assert await node.start(), node.log.read_text()[-3000:]
    assert await node.settles() == []
    assert await node.prepare(held) == ""
    assert await node.unprepare(held) == ""
    disk.empty()
    assert await node.settles() == []
    await all_is_well_again(node, claims)


async def test_a_plugin_that_was_stopped_starts_on_a_full_disk(
    node: Node, disk: Disk, cluster: Cluster, claims: list[JsonObject]
) -> None:
    """What it writes at a start has the space that its predecessor had; held claims are answered for."""
    held, *_ = claims
    assert await node.prepare(held) == ""
    await node.stop()
    disk.fill()
    assert await node.start(), node.log.read_text()[-3000:]
    assert await node.prepare(held) == ""
    assert await node.unprepare(held) == ""
    disk.empty()
    await cluster.reuse(held)
    await all_is_well_again(node, claims)


@pytest.mark.parametrize("pages", [0, 1])
async def test_a_first_start_on_a_full_disk_says_so(
    idle: Node, disk: Disk, claims: list[JsonObject], pages: int
) -> None:
    """One line with the folder and the way out, wherever the space ends; with space it starts."""
    disk.fill(but_bytes=pages * PAGE_BYTES)
    assert not await idle.start()
    assert await idle.dies() == 1
    said = idle.log.read_text()
    assert "No space left on device; free space on its filesystem" in said
    assert "Traceback" not in said, said
    disk.empty()
    assert await idle.start()
    await all_is_well_again(idle, claims)


async def test_a_disk_that_fills_up_in_the_middle_costs_only_the_new_claim(
    node: Node, disk: Disk, cluster: Cluster, claims: list[JsonObject]
) -> None:
    """With any number of pages left, a prepare either succeeds or leaves nothing: record, CDI file, or partition."""
    held, other, _ = claims
    assert await node.prepare(held) == ""
    outcomes = set()
    for pages in range(12):
        disk.fill(but_bytes=pages * PAGE_BYTES)
        error = await node.prepare(other)
        outcomes.add(error.partition("/")[0])
        assert await node.settles() == [], f"{pages} pages left"
        assert (len(node.backend.read("0000:1b:00.0").instances) == 1) == bool(error)
        assert await node.unprepare(other) == ""
        await cluster.reuse(other)
    assert outcomes == {
        "StorageFailed: cannot create journal ",
        "StorageFailed: cannot write CDI file ",
        "",
    }
    assert await node.unprepare(held) == ""
    await cluster.reuse(held)
    disk.empty()
    await all_is_well_again(node, claims)


async def test_a_read_only_disk_stops_what_must_be_written_and_nothing_else(
    node: Node, disk: Disk, cluster: Cluster, claims: list[JsonObject]
) -> None:
    """Replays are answered; prepare and unprepare say what to do and change nothing; once it is writable all go on."""
    held, other, _ = claims
    assert await node.prepare(held) == ""
    disk.remount_claims("ro")
    assert await node.prepare(held) == ""
    assert "Read-only file system; remount its filesystem writable" in await node.prepare(other)
    assert await node.wrongs(settled=True) == []
    assert "Read-only file system; remount its filesystem writable" in await node.unprepare(held)
    disk.remount_claims("rw")
    assert await node.unprepare(held) == ""
    assert await node.settles() == []
    await cluster.reuse(held)
    await all_is_well_again(node, claims)


async def test_a_plugin_does_not_start_on_a_read_only_disk_and_says_so(
    node: Node, disk: Disk, claims: list[JsonObject]
) -> None:
    """One line that names the file; what was held is held again when the disk is writable."""
    held, *_ = claims
    assert await node.prepare(held) == ""
    await node.kill()
    disk.remount("ro")
    before = len(node.log.read_text())
    assert not await node.start()
    assert await node.dies() == 1
    said = node.log.read_text()[before:]
    assert "error:" in said
    assert "Traceback" not in said, said
    disk.remount("rw")
    assert await node.start()
    assert await node.settles() == []
    assert await node.prepare(held) == ""
    await all_is_well_again(node, claims)
