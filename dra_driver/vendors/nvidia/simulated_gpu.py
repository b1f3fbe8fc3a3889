"""The NVIDIA GPUs of a machine profile: where they sit, what they are called, what exists on them at the start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from uuid import NAMESPACE_DNS, uuid5

from dra_driver.config.machine import GpuSpec, InstanceSpec, Machine
from dra_driver.model.device import Vendor
from dra_driver.model.errors import MachineError
from dra_driver.vendors.nvidia.mig_names import profile_name
from dra_driver.vendors.nvidia.nvml import MigMode, NvmlError, PciPlace
from dra_driver.vendors.nvidia.profiles import BOARDS, Board, Cut
from dra_driver.vendors.nvidia.simulated_state import (
    COMPUTE_SLICES,
    ComputeWish,
    MigState,
    with_compute,
    with_instance,
)

_BUSES = ("1b", "43", "52", "61", "9d", "c3", "d1", "df")
"""As in a DGX H100; more than eight GPUs go on in the next PCI domain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedGpu:
    """What never changes about one GPU, and the state in which it is delivered."""

    node: str
    index: int
    pci_address: str
    place: PciPlace
    board: Board
    initial: MigState

    @property
    def uuid(self) -> str:
        """The same for the same node and address, for ever."""
        return f"GPU-{uuid5(NAMESPACE_DNS, f'{self.node}/{self.pci_address}')}"

    def mig_uuid(self, number: int) -> str:
        """The UUID of the GPU's compute instance with that number of creation."""
        return f"MIG-{uuid5(NAMESPACE_DNS, f'{self.node}/{self.pci_address}/{number}')}"


def simulated_gpus(machine: Machine, node: str) -> tuple[SimulatedGpu, ...]:
    """The machine's NVIDIA GPUs in the order of their addresses; MachineError for what no such GPU can be."""
    specs = [
        spec for spec in machine.gpus if spec.vendor is Vendor.NVIDIA for _ in range(spec.count)
    ]
    return tuple(
        _gpu(machine, node, index, spec, in_first_half=index < len(specs) / 2)
        for index, spec in enumerate(specs)
    )


def _gpu(
    machine: Machine, node: str, index: int, spec: GpuSpec, *, in_first_half: bool
) -> SimulatedGpu:
    domain, slot = divmod(index, len(_BUSES))
    address = f"{domain:04x}:{_BUSES[slot]}:00.0"
    where = f"machine {machine.name}: GPU {address}"
    board = BOARDS.get(spec.model)
    if board is None:
        raise MachineError(f"{where}: model {spec.model!r} is none of {', '.join(sorted(BOARDS))}")
    gpu = SimulatedGpu(
        node=node,
        index=index,
        pci_address=address,
        place=PciPlace(
            root=f"pci{domain:04x}:{int(_BUSES[slot], 16) - 1:02x}",
            numa_node=0 if in_first_half else 1,
        ),
        board=board,
        initial=_initial_mode(board, spec, where),
    )
    return replace(gpu, initial=_with_instances(gpu, spec, where))


def _initial_mode(board: Board, spec: GpuSpec, where: str) -> MigState:
    mode = spec.mode or ("mig" if spec.instances else "whole")
    if mode not in {"whole", "mig"}:
        raise MachineError(f"{where}: mode {mode!r} is neither whole nor mig")
    if mode == "mig" and not board.cuts:
        raise MachineError(f"{where}: mode mig is not possible, {spec.model} has no MIG; use whole")
    if mode == "whole" and spec.instances:
        raise MachineError(f"{where}: mode whole has no instances; remove them or use mig")
    mig = MigMode.ENABLED if mode == "mig" else MigMode.DISABLED
    return MigState(mode=mig, pending=mig)


def _with_instances(gpu: SimulatedGpu, spec: GpuSpec, where: str) -> MigState:
    state = gpu.initial
    for instance in spec.instances:
        state = _with_made(gpu, state, instance, where)
    return state


def _with_made(gpu: SimulatedGpu, state: MigState, wanted: InstanceSpec, where: str) -> MigState:
    cuts = {profile_name(c.index, c.profile, gpu.board.memory_mib << 20): c for c in gpu.board.cuts}
    cut = cuts.get(wanted.profile)
    if cut is None:
        raise MachineError(f"{where}: profile {wanted.profile!r} is none of {', '.join(cuts)}")
    made = next((s for start, s in _possible(gpu, state, cut) if start == wanted.start), None)
    if made is None:
        starts = ", ".join(str(start) for start, _ in _possible(gpu, state, cut)) or "none"
        raise MachineError(
            f"{where}: profile {wanted.profile} cannot stand at {wanted.start} beside the instances "
            f"before it; possible starts: {starts}"
        )
    return made


def _possible(gpu: SimulatedGpu, state: MigState, cut: Cut) -> Iterator[tuple[int, MigState]]:
    """The starts at which the profile can still stand, each with the state it leads to."""
    full = next(index for index, slices in COMPUTE_SLICES.items() if slices == cut.profile.slices)
    wish = ComputeWish(profile_id=full, uuid=gpu.mig_uuid(state.created))
    for placement in cut.placements:
        try:
            bare, number = with_instance(gpu.board, state, cut.profile.id, placement)
        except NvmlError:
            continue
        yield placement.start, with_compute(gpu.board, bare, number, wish)[0]
