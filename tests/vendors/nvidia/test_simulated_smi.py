"""Repartitioning behind the plugin's back, by another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dra_driver.config.machine import load_machine
from dra_driver.model.device import Gpu, Placement
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml

GPU = "0000:1b:00.0"
PROGRAM = "dra_driver.vendors.nvidia.simulated_smi"


@pytest.fixture
def backend(tmp_path: Path) -> NvidiaBackend:
    """What the plugin looks through."""
    machine = load_machine("8xh100-80")
    return NvidiaBackend(SimulatedNvml(machine, node="n", state_dir=tmp_path))


def smi(
    folder: Path, *arguments: str, machine: str = "8xh100-80"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", PROGRAM, "--machine", machine, "--node", "n"]
    return subprocess.run(
        [*command, str(folder), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )


def mode_of(gpu: Gpu) -> str:
    assert gpu.partitioning is not None
    return gpu.partitioning.mode


def test_what_another_process_does_is_seen(backend: NvidiaBackend, tmp_path: Path) -> None:
    """Mode, partition and its end: each in the next look of those who have been looking all the time."""
    assert smi(tmp_path, "mode", GPU, "mig").stdout == "whole\n"
    assert mode_of(backend.read(GPU)) == "mig"
    assert smi(tmp_path, "create", GPU, "3g.40gb", "4").stdout == "gi-1/ci-0\n"
    (made,) = backend.read(GPU).instances
    assert (made.profile, made.placement, made.complete) == ("3g.40gb", Placement(4, 4), True)
    assert smi(tmp_path, "destroy", GPU, "4").stdout == "gi-1/ci-0\n"
    assert backend.read(GPU).instances == ()
    assert smi(tmp_path, "mode", GPU, "whole").stdout == "mig\n"
    assert mode_of(backend.read(GPU)) == "whole"


def test_a_mode_that_needs_a_reset_waits_for_it(tmp_path: Path) -> None:
    """On an A100: pending until somebody resets the GPU, which ends its partitions."""
    machine = load_machine("8xa100-80")
    backend = NvidiaBackend(SimulatedNvml(machine, node="n", state_dir=tmp_path))
    assert smi(tmp_path, "mode", GPU, "mig", machine="8xa100-80").stdout == "whole\n"
    assert mode_of(backend.read(GPU)) == "whole"
    assert backend.read(GPU).extras["modeAfterReset"] == "mig"
    assert smi(tmp_path, "reset", GPU, machine="8xa100-80").stdout == "mig\n"
    assert mode_of(backend.read(GPU)) == "mig"
    assert "modeAfterReset" not in backend.read(GPU).extras
    assert smi(tmp_path, "create", GPU, "3g.40gb", "4", machine="8xa100-80").returncode == 0
    assert smi(tmp_path, "reset", GPU, machine="8xa100-80").returncode == 0
    assert backend.read(GPU).instances == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", GPU, "1g.10gb", "6"], "NOT_SUPPORTED"),
        (["create", GPU, "1g.10gb", "7"], "no profile '1g.10gb' may start at 7"),
        (["create", GPU, "1g.5gb", "0"], "no profile '1g.5gb'"),
        (["destroy", GPU, "0"], "no partition starts at 0"),
        (["mode", "0000:99:00.0", "mig"], "0000:99:00.0"),
    ],
)
def test_what_cannot_be_done_is_said(
    backend: NvidiaBackend, tmp_path: Path, arguments: list[str], words: str
) -> None:
    """On one line, with a status, and nothing has changed."""
    before = backend.read(GPU)
    ended = smi(tmp_path, *arguments)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert backend.read(GPU) == before


def test_a_folder_without_gpus_is_refused(tmp_path: Path) -> None:
    """A slip of the finger makes no GPUs that nobody else sees."""
    ended = smi(tmp_path / "nivdia", "mode", GPU, "mig")
    assert ended.returncode == 2
    assert "nivdia" in ended.stderr
    assert list(tmp_path.iterdir()) == []
