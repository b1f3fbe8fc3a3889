"""Random lives of a GPU with MIG, on every simulated board: claims, crashes, and an administrator who interferes.

    python -m tests.property.mig --count 2000 --seed 1

What fails is made smaller, and printed with the actions that lead to it.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import structlog
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from dra_driver.rules.splitting import is_exact
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.profiles import BOARDS
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.vendors.nvidia.splits import possible_splits
from tests.faults.virtual_time import run
from tests.kubelet_plugin.conftest import NODE, machine_of
from tests.property.actions import Action, lives
from tests.property.mig_life import MigLife

MODELS = sorted(model for model, board in BOARDS.items() if board.cuts)


def splits_of(model: str) -> list[tuple[str, ...]]:
    """No profile of parts, and each that the board can offer."""
    with tempfile.TemporaryDirectory() as folder:
        nvml = SimulatedNvml(machine_of(model, 1), node=NODE, state_dir=Path(folder))
        (gpu,) = discover(NvidiaBackend(nvml)).gpus
    assert gpu.partitioning is not None
    partitioning = gpu.partitioning
    exact = [split for split in possible_splits(partitioning) if is_exact(partitioning, split)]
    return [(), *((split.name,) for split in exact)]


def live(model: str, mode: str, splits: tuple[str, ...], actions: list[Action]) -> None:
    """One life; AssertionError where something is not as it must be."""
    folder = Path(tempfile.mkdtemp(prefix="dra-"))
    dice = random.Random(len(actions))
    try:
        run(MigLife(folder, model, mode, dice, splits).run(actions), dice)
    finally:
        shutil.rmtree(folder)


def try_lives(model: str, count: int, seed_number: int) -> None:
    """That many lives of GPUs of that model; the first one that fails is raised, as small as it gets."""

    @seed(seed_number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        mode=st.sampled_from(["mig", "whole"]),
        splits=st.sampled_from(splits_of(model)),
        actions=lives,
    )
    def every_life(mode: str, splits: tuple[str, ...], actions: list[Action]) -> None:
        live(model, mode, splits, actions)

    every_life()


def main() -> int:
    """Try the lives; 1 if anything was wrong."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    options.add_argument("--count", type=int, default=2000, help="lives of each model")
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options.add_argument("--model", choices=MODELS, action="append", help="default: all of them")
    asked = options.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    began = time.monotonic()
    for model in asked.model or MODELS:
        try_lives(model, asked.count, asked.seed)
        took_s = time.monotonic() - began
        sys.stdout.write(f"{model}: {asked.count} lives from seed {asked.seed}, {took_s:.0f} s\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
