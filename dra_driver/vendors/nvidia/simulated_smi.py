"""Changes simulated NVIDIA GPUs from outside, as somebody with `nvidia-smi` does behind the plugin's back.

    python -m dra_driver.vendors.nvidia.simulated_smi --machine 8xh100-80 --node n1 FOLDER create 0000:1b:00.0 1g.10gb 6

FOLDER holds the state of the node's GPUs, which its plugin shares: it sees the change at its next look.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dra_driver.config.machine import load_machine
from dra_driver.model.device import CreateStage, DestroyStage
from dra_driver.model.errors import DraError, VendorError
from dra_driver.ports import Backend
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.discovery import MIG, WHOLE, explained
from dra_driver.vendors.nvidia.nvml import MigMode
from dra_driver.vendors.nvidia.simulated import SimulatedNvml

_MODES = {WHOLE: MigMode.DISABLED, MIG: MigMode.ENABLED}


def create(backend: Backend, gpu: str, profile: str, start: int) -> str:
    """Make the partition and return its identity, `gi-3/ci-0`. VendorError where it does not fit or MIG mode is off."""
    partitioning = backend.read(gpu).partitioning
    known = partitioning.profile(profile) if partitioning else None
    placements = known.placements if known else ()
    placement = next((one for one in placements if one.start == start), None)
    if known is None or placement is None:
        raise VendorError(
            f"GPU {gpu}: no profile {profile!r} may start at {start}; look at its placements"
        )
    identity = ""
    for stage in known.stages:
        change = CreateStage(
            gpu=gpu, profile=profile, placement=placement, stage=stage, parent=identity or None
        )
        identity = backend.partition(change)
    return identity


def destroy(backend: Backend, gpu: str, start: int) -> str:
    """Destroy the partition that starts there, whoever made it, and return the identity that it had."""
    read = backend.read(gpu)
    instance = next((one for one in read.instances if one.placement.start == start), None)
    if instance is None or read.partitioning is None:
        raise VendorError(f"GPU {gpu}: no partition starts at {start}; look at its instances")
    parts = instance.identity.split("/")
    profile = read.partitioning.profile(instance.profile)
    assert profile is not None
    for depth in range(len(parts), 0, -1):
        created = CreateStage(
            gpu=gpu,
            profile=instance.profile,
            placement=instance.placement,
            stage=profile.stages[depth - 1],
        )
        backend.partition(DestroyStage(created=created, identity="/".join(parts[:depth])))
    return instance.identity


def set_mode(nvml: SimulatedNvml, gpu: str, mode: str) -> str:
    """`nvidia-smi -mig`: the mode that there was. Where the new one needs a reset, or the GPU is in use, it is left pending."""
    with explained(f"GPU {gpu}: changing to mode {mode}"):
        handle = nvml.gpu_by_address(gpu)
        former = MigMode(nvml.mig_mode(handle)[0])
        nvml.set_mig_mode(handle, _MODES[mode])
    return next(name for name, known in _MODES.items() if known is former)


def reset(nvml: SimulatedNvml, gpu: str) -> str:
    """`nvidia-smi --gpu-reset`: the GPU is in the mode that was pending, which is returned, and has no partition."""
    with explained(f"GPU {gpu}: resetting it"):
        handle = nvml.gpu_by_address(gpu)
        nvml.reset(handle)
        mode = nvml.mig_mode(handle)[0]
    return next(name for name, known in _MODES.items() if known == mode)


def main() -> int:
    """Do what the command line says, print what was made, destroyed or replaced, or why not; the exit status."""
    parser = _parser()
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        parser.error(f"{arguments.folder} is no folder with the state of simulated GPUs")
    try:
        machine = load_machine(arguments.machine)
        nvml = SimulatedNvml(machine, node=arguments.node, state_dir=arguments.folder)
        backend = NvidiaBackend(nvml)
        match arguments.action:
            case "create":
                done = create(backend, arguments.gpu, arguments.profile, arguments.start)
            case "destroy":
                done = destroy(backend, arguments.gpu, arguments.start)
            case "reset":
                done = reset(nvml, arguments.gpu)
            case _:
                done = set_mode(nvml, arguments.gpu, arguments.mode)
    except DraError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{done}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="simulated_smi", description=__doc__)
    parser.add_argument("--machine", required=True, help="as the plugin's --machine")
    parser.add_argument("--node", required=True, help="the node's name: UUIDs follow from it")
    parser.add_argument("folder", type=Path, help="where the GPUs' state lies")
    actions = parser.add_subparsers(dest="action", required=True)
    for name, fields in {
        "create": ("gpu", "profile", "start"),
        "destroy": ("gpu", "start"),
        "mode": ("gpu", "mode"),
        "reset": ("gpu",),
    }.items():
        action = actions.add_parser(name)
        for field in fields:
            choices = list(_MODES) if field == "mode" else None
            action.add_argument(field, type=int if field == "start" else str, choices=choices)
    return parser


if __name__ == "__main__":
    sys.exit(main())
