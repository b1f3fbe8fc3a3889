"""Forked plugins are the real program, and none outlives what started it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults.forks import Forks, forking


async def test_a_forked_plugin_is_the_real_program(forks: Forks, tmp_path: Path) -> None:
    """Its command line, its output and its exit status are those of `dra-kubelet-plugin`."""
    told = await forks.start(["version"], tmp_path / "log")
    assert await told.wait() == 0
    refused = await forks.start(["run", "--nonsense"], tmp_path / "log")
    assert await refused.wait() == 2
    said = (tmp_path / "log").read_text()
    assert said.startswith("dra-kubelet-plugin ")
    assert "No such option" in said


async def test_a_kill_is_told_by_its_signal(forks: Forks, tmp_path: Path) -> None:
    """As the standard library's processes tell it."""
    process = await forks.start(_flags(tmp_path), tmp_path / "log")
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    process.send_signal(signal.SIGKILL)


async def test_no_plugin_outlives_the_one_that_started_it(tmp_path: Path) -> None:
    """Even one that serves."""
    async with forking() as forks:
        process = await forks.start(_flags(tmp_path), tmp_path / "log")
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def _flags(folder: Path) -> list[str]:
    """A plugin without an API server."""
    flags = {
        "node-name": "n",
        "server": "http://127.0.0.1:9",
        "machine": "8xh100-80",
        "data-dir": str(folder / "data"),
        "registry-dir": str(folder),
        "cdi-dir": str(folder / "cdi"),
        "simulation-dir": str(folder / "hardware"),
    }
    return ["run", *(text for name, value in flags.items() for text in (f"--{name}", value))]
