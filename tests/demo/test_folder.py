"""The sandbox's folder: made, taken over or refused, and removed again."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.model.errors import StartError
from dra_driver.sandbox.folder import read_running, sandbox_folder


def test_it_is_there_for_the_block_only(tmp_path: Path) -> None:
    """With its parents, and with the word of whose it is."""
    folder = tmp_path / "a" / "b"
    with sandbox_folder(folder) as root:
        assert read_running(root) is not None
        (root / "node").mkdir()
    assert not folder.exists()


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    """Somebody may have made it beforehand."""
    with sandbox_folder(tmp_path) as root:
        assert root == tmp_path


def test_a_link_stands_for_the_folder_that_it_names(tmp_path: Path) -> None:
    """It is followed, not replaced, wherever it leads."""
    link, folder = tmp_path / "link", tmp_path / "far"
    link.symlink_to(folder)
    for _ in range(2):
        with sandbox_folder(link) as root:
            assert root == folder
        assert link.is_symlink()
        assert not folder.exists()
        folder.mkdir()


def test_a_folder_that_cannot_be_made_is_named() -> None:
    """With what to do instead."""
    said = r"folder /proc/sys/sandbox cannot be made: .+; name another --dir"
    with pytest.raises(StartError, match=said), sandbox_folder(Path("/proc/sys/sandbox")):
        pass
