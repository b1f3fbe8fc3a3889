"""A host with NVIDIA GPUs below a folder: the fake library, the machine that it answers from, and what the kernel says."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dra_driver.vendors.nvidia.mig_names import profile_name
from dra_driver.vendors.nvidia.nvml import Code
from dra_driver.vendors.nvidia.profiles import Board, Cut
from dra_driver.vendors.nvidia.simulated_gpu import SimulatedGpu
from tests.vendors.nvidia.conftest import bind
from tests.vendors.nvidia.fake import layout
from tests.vendors.nvidia.fake.build import built_library
from tests.vendors.nvidia.fake.condition import METRICS, idle, well

_GPU = 1
_ANY_NUMBER = 2**32 - 1
_MET_WITHIN_S = 30.0


class FakeHost:
    """A machine's GPUs and the driver on it. What one process does there the others see.

    Each host has a copy of the library, so that one process can be on several, as each copy is loaded for itself.
    """

    def __init__(self, root: Path, gpus: Sequence[SimulatedGpu]) -> None:
        self.root = root
        self.addresses = tuple(gpu.pci_address for gpu in gpus)
        folder = root / "usr/lib64"
        folder.mkdir(parents=True)
        self._file = folder / "machine.nvml"
        self._file.write_bytes(bytes(_machine(gpus)))
        shutil.copyfile(built_library(), folder / "libnvidia-ml.so.1")
        bind(root, *self.addresses)
        _write_minors(root, len(gpus))

    @contextmanager
    def failing(
        self, address: str, function: str = "", *, code: Code = Code.SUCCESS, delay_ms: int = 0
    ) -> Iterator[Callable[[], None]]:
        """Calls of that function, or all, of that GPU take that long and return that code, until the end of the block.

        What is given waits until a call has met the fault.
        """
        with self.changing_gpu(address) as gpu:
            number = next(i for i, fault in enumerate(gpu.faults) if not fault.calls)
            gpu.faults[number] = layout.Fault(function.encode(), code, _ANY_NUMBER, delay_ms, 0)

        def until_met() -> None:
            deadline = time.monotonic() + _MET_WITHIN_S
            while time.monotonic() < deadline:
                with self.changing_gpu(address) as gpu:
                    if gpu.faults[number].met:
                        return
                time.sleep(0.005)
            raise AssertionError(f"no call of {function or 'any function'} met the fault")

        try:
            yield until_met
        finally:
            with self.changing_gpu(address) as gpu:
                gpu.faults[number] = layout.Fault()

    def fail_once(self, address: str, function: str, code: Code) -> None:
        """The next call of that function returns that code."""
        with self.changing_gpu(address) as gpu:
            number = next(i for i, fault in enumerate(gpu.faults) if not fault.calls)
            gpu.faults[number] = layout.Fault(function.encode(), code, 1, 0, 0)

    def set_busy(self, address: str, *, busy: bool) -> None:
        """Have a process use the GPU, or no more."""
        with self.changing_gpu(address) as gpu:
            gpu.busy = busy

    def reset(self, address: str) -> None:
        """Reset the GPU: the pending mode is current, instances are gone."""
        with self.changing_gpu(address) as gpu:
            gpu.mode = gpu.pending
            gpu.instances = type(gpu.instances)()

    def unload(self) -> None:
        """Take the kernel module away, and all instances with it. MIG mode outlives it only where it needs a reset."""
        with self.changing() as machine:
            machine.loaded = False
            for gpu in machine.gpus:
                gpu.instances = type(gpu.instances)()
                gpu.mode = gpu.pending = 0 if gpu.resetless else gpu.pending

    def load(self) -> None:
        """Load the kernel module again: who was initialised on the former one must be initialised anew."""
        with self.changing() as machine:
            machine.loaded = True
            machine.loads += 1

    @contextmanager
    def changing(self) -> Iterator[layout.Machine]:
        """The machine, and nobody else at it; what was changed is written back."""
        with self._file.open("r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            machine = layout.Machine.from_buffer_copy(file.read())
            yield machine
            os.pwrite(file.fileno(), bytes(machine), 0)

    @contextmanager
    def changing_gpu(self, address: str) -> Iterator[layout.Gpu]:
        """As `changing`, one GPU of it."""
        with self.changing() as machine:
            yield next(gpu for gpu in machine.gpus if gpu.address == address.encode())


def _machine(gpus: Sequence[SimulatedGpu]) -> layout.Machine:
    machine = layout.Machine(
        loads=1,
        loaded=1,
        cuda_version=13000,
        driver_version=b"580.105.08",
        metrics=tuple(METRICS),
        gpu_count=len(gpus),
    )
    for number, gpu in enumerate(gpus):
        machine.gpus[number] = _gpu(gpu)
    return machine


def _gpu(gpu: SimulatedGpu) -> layout.Gpu:
    board = gpu.board
    fake = layout.Gpu(
        kind=_GPU,
        address=gpu.pci_address.encode(),
        name=board.product_name.encode(),
        uuid=gpu.uuid.encode(),
        device_id=board.device_id,
        minor=gpu.index,
        architecture=board.architecture,
        capability_major=board.compute_capability[0],
        capability_minor=board.compute_capability[1],
        memory_mib=board.memory_mib,
        cores=board.cores,
        resetless=board.is_mig_resetless,
        mode=gpu.initial.mode,
        pending=gpu.initial.pending,
        cut_count=len(board.cuts),
        health=well(board),
        load=idle(),
    )
    for number, cut in enumerate(board.cuts):
        fake.cuts[number] = _cut(board, cut)
    return fake


def _cut(board: Board, cut: Cut) -> layout.Cut:
    profile = cut.profile
    name = profile_name(cut.index, profile, board.memory_mib << 20)
    fake = layout.Cut(
        index=cut.index,
        id=profile.id,
        limit=profile.limit,
        multiprocessors=profile.multiprocessors,
        memory_mib=profile.memory_mib,
        amounts=(
            profile.slices,
            profile.copy_engines,
            profile.decoders,
            profile.encoders,
            profile.jpeg_engines,
            profile.ofa_engines,
        ),
        place_count=len(cut.placements),
        name=f"MIG {name}".encode(),
    )
    for number, place in enumerate(cut.placements):
        fake.places[number] = layout.Place(place.start, place.size)
    return fake


def _write_minors(root: Path, gpus: int) -> None:
    """The kernel's table of capabilities: each GPU has 15 GPU instances, each of them 8 compute instances."""
    rights = [
        right
        for gpu in range(gpus)
        for instance in range(15)
        for right in (
            f"gpu{gpu}/gi{instance}/access",
            *(f"gpu{gpu}/gi{instance}/ci{compute}/access" for compute in range(8)),
        )
    ]
    table = root / "proc/driver/nvidia-caps/mig-minors"
    table.parent.mkdir(parents=True)
    lines = ["config 1", "monitor 2", *(f"{right} {n}" for n, right in enumerate(rights, start=3))]
    table.write_text("\n".join(lines) + "\n")
