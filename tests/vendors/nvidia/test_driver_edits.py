"""The driver's part of every container: when it is made, of what, and what claims get meanwhile."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dra_driver.model.edits import ContainerEdits
from dra_driver.model.errors import VendorError
from dra_driver.vendors.nvidia.driver_edits import DriverEdits, Patience
from dra_driver.vendors.nvidia.driver_files import find_driver_files
from dra_driver.vendors.nvidia.driver_root import DriverRoot
from dra_driver.vendors.nvidia.driver_search import DriverSearch
from dra_driver.vendors.nvidia.toolkit_spec import ToolkitSpec
from tests.vendors.nvidia.driver_tree import (
    DRIVER,
    LIBRARIES,
    FakeToolkit,
    build_driver,
    settled,
    toolkit_spec,
)

NEWER = "590.48.01"


class Node:
    """A node's folder, its driver and its nvidia-ctk; each `start` is another process's start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir()
        self.root = DriverRoot(configured=folder / "driver")
        build_driver(self.root.here)
        self.toolkit = FakeToolkit(folder / "bin/nvidia-ctk")
        self.prints(DRIVER)

    def prints(self, version: str) -> None:
        """nvidia-ctk knows the driver of that version."""
        self.toolkit.prints(json.dumps(toolkit_spec(str(self.root.path), version)))

    def start(self, patience: Patience | None = None, *, without: bool = False) -> DriverEdits:
        """With this node's nvidia-ctk, or without any."""
        file = self.data / "nvidia-driver.json"
        toolkit = None if without else self.toolkit.path
        return DriverEdits(
            DriverSearch(self.root, kept_in=file, toolkit=toolkit), patience or Patience()
        )

    def said(self, version: str = DRIVER) -> ContainerEdits:
        """What nvidia-ctk says of that version."""
        spec = json.dumps(toolkit_spec(str(self.root.path), version)).encode()
        return ToolkitSpec.parse(spec).common()

    def found(self) -> ContainerEdits:
        """What our own search finds."""
        return find_driver_files(self.root, DRIVER)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """One with everything in order."""
    return Node(tmp_path)


def test_it_is_asked_once_for_a_driver(node: Node) -> None:
    """However many GPUs are looked at and claims come."""
    edits = node.start()
    for _ in range(3):
        edits.expect(DRIVER)
    assert of(edits, DRIVER) == of(edits, DRIVER) == node.said()
    edits.expect(DRIVER)
    assert len(node.toolkit.calls) == 1


def test_the_next_start_asks_nobody(node: Node) -> None:
    """What it said is in the file; another program, driver or driver root means asking anew."""
    of(node.start(), DRIVER)
    assert of(node.start(), DRIVER) == node.said()
    assert len(node.toolkit.calls) == 1
    node.prints(NEWER)
    assert of(node.start(), NEWER) == node.said(NEWER)
    assert len(node.toolkit.calls) == 2
    node.root = DriverRoot(configured=node.folder)
    of(node.start(), NEWER)
    assert len(node.toolkit.calls) == 3


def test_a_reloaded_driver_has_other_files(node: Node) -> None:
    """A claim of the new driver never gets the old one's files, even if nobody has looked at a GPU yet."""
    edits = node.start()
    assert of(edits, DRIVER) == node.said()
    node.prints(NEWER)
    assert of(edits, NEWER) == node.said(NEWER)


def test_a_claim_that_comes_too_early_may_come_again(node: Node) -> None:
    """While nvidia-ctk runs; and it is not asked a second time for that."""
    gate = node.folder / "gate"
    os.mkfifo(gate)
    node.toolkit.prints(
        json.dumps(toolkit_spec(str(node.root.path))), then=f"read -r line < {gate}"
    )
    edits = node.start(Patience(claim_s=0.05))
    with pytest.raises(VendorError, match=DRIVER) as early:
        of(edits, DRIVER)
    assert early.value.retryable
    gate.write_text("go on\n")
    settled(edits)
    assert of(edits, DRIVER) == node.said()
    assert len(node.toolkit.calls) == 1


@pytest.mark.parametrize("script", ["exit 1", "echo garbage", "sleep 600"])
def test_our_own_search_stands_in(node: Node, script: str) -> None:
    """Whatever is wrong with nvidia-ctk, containers get the driver's libraries, and the log says why."""
    node.toolkit.does(script)
    edits = node.start(Patience(toolkit_s=0.5))
    with capture_logs() as logs:
        assert of(edits, DRIVER) == node.found()
    assert node.found().mounts
    (warning,) = [entry for entry in logs if entry["event"] == "nvidia-ctk does not help"]
    assert str(node.toolkit.path) in warning["why"] or "CDI spec" in warning["why"]


def test_what_it_said_before_is_better_than_our_search(node: Node) -> None:
    """As long as the driver is the same, and at the same place."""
    of(node.start(), DRIVER)
    node.toolkit.does("exit 1")
    assert of(node.start(), DRIVER) == node.said()
    build_driver(node.root.here, NEWER)
    assert of(node.start(), NEWER) == find_driver_files(node.root, NEWER)
    node.root = DriverRoot(configured=node.folder / "other")
    build_driver(node.root.here)
    assert of(node.start(), DRIVER) == node.found()


@pytest.mark.parametrize(("retry_s", "calls"), [(600, 1), (0, 2)])
def test_one_that_failed_is_asked_again_after_a_while(
    node: Node, retry_s: float, calls: int
) -> None:
    """At the first look at a GPU after that, not at every one."""
    node.toolkit.does("exit 1")
    edits = node.start(Patience(retry_s=retry_s))
    of(edits, DRIVER)
    settled(edits)
    edits.expect(DRIVER)
    settled(edits)
    assert len(node.toolkit.calls) == calls


def test_one_that_is_installed_later_is_used(tmp_path: Path) -> None:
    """The GPU operator installs it after the driver; the next look at a GPU finds it."""
    root = DriverRoot(host_root=tmp_path)
    build_driver(tmp_path)
    edits = DriverEdits(DriverSearch(root, kept_in=tmp_path / "kept.json"))
    assert of(edits, DRIVER) == find_driver_files(root, DRIVER)
    (tmp_path / "usr/bin/nvidia-ctk").write_text("no program at all")
    with capture_logs() as logs:
        edits.expect(DRIVER)
        settled(edits)
    assert [entry["event"] for entry in logs] == ["nvidia-ctk does not help"]


def test_files_that_go_away_are_looked_for_anew(node: Node) -> None:
    """A daemon's socket, a library: the next look at a GPU sees that it is gone."""
    edits = node.start(without=True)
    before = of(edits, DRIVER)
    (node.root.here / LIBRARIES / f"libnvidia-glcore.so.{DRIVER}").unlink()
    edits.expect(DRIVER)
    settled(edits)
    assert len(before.mounts) - len(of(edits, DRIVER).mounts) == 1


@pytest.mark.parametrize("content", ["", "{", '{"driver": "580.105.08"}'])
def test_a_damaged_file_is_none(node: Node, content: str) -> None:
    """It is made anew."""
    (node.data / "nvidia-driver.json").write_text(content)
    assert of(node.start(), DRIVER) == node.said()
    assert of(node.start(), DRIVER) == node.said()
    assert len(node.toolkit.calls) == 1


def test_a_file_that_cannot_be_written_hinders_nobody(node: Node) -> None:
    """The next start is slower, that is all."""
    node.data.rmdir()
    assert of(node.start(), DRIVER) == node.said()


def test_a_node_without_driver_files_says_so(node: Node) -> None:
    """Containers get device nodes alone, as their images may bring the rest; the log names the setting."""
    edits = node.start(without=True)
    with capture_logs() as logs:
        assert of(edits, NEWER) == ContainerEdits()
    assert ["nvidiaDriverRoot" in entry["event"] for entry in logs] == [True]


def of(edits: DriverEdits, driver: str) -> ContainerEdits:
    """What a claim of that driver gets now."""
    shared = edits.of(driver)
    return shared.edits if shared is not None else ContainerEdits()
