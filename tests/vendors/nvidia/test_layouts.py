"""Whole layouts on simulated hardware: all that the catalogue and the placement engine promise can be built and undone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from dra_driver.model.device import (
    CreateStage,
    DestroyStage,
    Gpu,
    Instance,
    Placement,
    Target,
)
from dra_driver.model.errors import VendorError
from dra_driver.ports import Backend
from dra_driver.rules.partitions import Placed, layouts, legal, maximal_layouts
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.profiles import BOARDS
from dra_driver.vendors.nvidia.simulated import SimulatedNvml

Simulate = Callable[..., SimulatedNvml]

GPU = "0000:1b:00.0"
MIG_BOARDS = [model for model, board in BOARDS.items() if board.cuts]


def only_gpu(backend: Backend) -> Gpu:
    (gpu,) = discover(backend).gpus
    return gpu


def make(backend: Backend, profile: str, placement: Placement) -> str:
    """Both stages of a partition, as an executor makes them."""
    identity = None
    for stage in ("gpu-instance", "compute-instance"):
        identity = backend.partition(
            CreateStage(gpu=GPU, profile=profile, placement=placement, stage=stage, parent=identity)
        )
    assert identity is not None
    return identity


def unmake(backend: Backend, identity: str) -> None:
    """Both stages, backwards."""
    (it,) = [one for one in only_gpu(backend).instances if one.identity == identity]
    for stage, handle in [
        ("compute-instance", identity),
        ("gpu-instance", identity.partition("/")[0]),
    ]:
        created = CreateStage(gpu=GPU, profile=it.profile, placement=it.placement, stage=stage)
        backend.partition(DestroyStage(created=created, identity=handle))


def as_layout(instances: Iterable[Instance]) -> frozenset[Placed]:
    return frozenset(Placed(instance.profile, instance.placement) for instance in instances)


@pytest.mark.parametrize("model", MIG_BOARDS)
def test_every_partition_of_every_board_can_be_made_and_unmade(
    simulate: Simulate, model: str
) -> None:
    """Each legal profile and placement is created, read back the same, described to a container, and destroyed."""
    backend = NvidiaBackend(simulate(model=model, mode="mig"))
    partitioning = only_gpu(backend).partitioning
    assert partitioning is not None
    for profile in partitioning.profiles:
        for placement in profile.placements:
            identity = make(backend, profile.name, placement)
            (instance,) = only_gpu(backend).instances
            assert (instance.profile, instance.placement) == (profile.name, placement)
            assert (instance.identity, instance.complete) == (identity, True)
            edits = backend.edits(Target(gpu=GPU, instance=identity))
            assert instance.uuid in dict(edits.env).values()
            unmake(backend, identity)
    assert only_gpu(backend).instances == ()


@pytest.mark.parametrize(
    "model", [model for model in MIG_BOARDS if model[0] in "ABH" and model != "A30"]
)
def test_engines_never_limit_what_slices_allow(simulate: Simulate, model: str) -> None:
    """With their real engine counts, all seven-slice boards have the 2319 layouts that slices and one media engine allow."""
    partitioning = only_gpu(NvidiaBackend(simulate(model=model))).partitioning
    assert partitioning is not None
    assert sum(1 for _ in layouts(partitioning)) == 2319


def test_every_maximal_layout_can_be_built_and_nothing_fits_beside(simulate: Simulate) -> None:
    """The placement engine and the hardware agree: what it calls full is legal to build, and full."""
    backend = NvidiaBackend(simulate(model="A30", mode="mig"))
    partitioning = only_gpu(backend).partitioning
    assert partitioning is not None
    for layout in maximal_layouts(partitioning):
        made = [make(backend, one.profile_name, one.placement) for one in sorted(layout)]
        assert as_layout(only_gpu(backend).instances) == layout
        for profile in partitioning.profiles:
            for placement in profile.placements:
                with pytest.raises(VendorError, match="INSUFFICIENT_RESOURCES"):
                    make(backend, profile.name, placement)
        for identity in made:
            unmake(backend, identity)


@pytest.mark.parametrize(
    "layout",
    [
        [("1g.10gb", start, 1) for start in range(7)],
        [("2g.20gb", 0, 2), ("1g.10gb", 2, 1), ("1g.10gb", 3, 1), ("3g.40gb", 4, 4)],
        [("4g.40gb", 0, 4), ("3g.40gb", 4, 4)],
        [("3g.40gb", 0, 4), ("3g.40gb", 4, 4)],
        [("1g.20gb", 0, 2), ("1g.20gb", 2, 2), ("1g.20gb", 4, 2), ("1g.20gb", 6, 2)],
        [("7g.80gb", 0, 8)],
    ],
)
def test_full_layouts_of_seven_slices(
    simulate: Simulate, layout: list[tuple[str, int, int]]
) -> None:
    """The layouts that people ask for stand together, each partition with an identity and a UUID of its own."""
    backend = NvidiaBackend(simulate(mode="mig"))
    identities = {make(backend, name, Placement(start, size)) for name, start, size in layout}
    gpu = only_gpu(backend)
    assert gpu.partitioning is not None
    assert legal(gpu.partitioning, as_layout(gpu.instances))
    assert {instance.identity for instance in gpu.instances} == identities
    assert len({instance.uuid for instance in gpu.instances}) == len(layout)


def test_a_process_killed_between_the_stages_leaves_an_incomplete_instance(
    simulate: Simulate, tmp_path: Path
) -> None:
    """The next process sees what is there, with the stage's identity, and can finish or undo it."""
    script = """
import os, signal, sys
from pathlib import Path
from dra_driver.config.machine import load_machine
from dra_driver.model.device import CreateStage, Placement, SetMode
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
nvml = SimulatedNvml(load_machine("8xh100-80"), node="node-a", state_dir=Path(sys.argv[1]))
backend, gpu = NvidiaBackend(nvml), "0000:1b:00.0"
backend.partition(SetMode(gpu=gpu, mode="mig"))
backend.partition(
    CreateStage(gpu=gpu, profile="3g.40gb", placement=Placement(4, 4), stage="gpu-instance")
)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "gpus")],
        check=False,
        timeout=30,
        env=os.environ,
    )
    assert killed.returncode == -9
    backend = NvidiaBackend(simulate())
    (left,) = only_gpu(backend).instances
    assert (left.profile, left.placement) == ("3g.40gb", Placement(4, 4))
    assert (left.identity, left.uuid, left.complete) == ("gi-1", "", False)
    with pytest.raises(VendorError, match="gi-1 has no MIG device"):
        backend.edits(Target(gpu=GPU, instance=left.identity))
    finish = CreateStage(
        gpu=GPU,
        profile="3g.40gb",
        placement=Placement(4, 4),
        stage="compute-instance",
        parent="gi-1",
    )
    assert backend.partition(finish) == "gi-1/ci-0"
    assert only_gpu(backend).instances[0].complete
