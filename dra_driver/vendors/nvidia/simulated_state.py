"""The MIG state of one simulated GPU and the driver's rules for changing it: pure, so that each rule stands alone.

Every rule takes a state and returns the next one, or raises NvmlError with the code that the driver would return.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import NoReturn

from dra_driver.model.device import Placement
from dra_driver.vendors.nvidia.nvml import Code, GpuProfile, MigMode, NvmlError
from dra_driver.vendors.nvidia.profiles import Board, Cut

COMPUTE_SLICES = {0: 1, 1: 2, 2: 3, 3: 4, 4: 7}
"""Slices of the compute profiles that we simulate, by index; their `id` is the same number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeState:
    """A compute instance that exists; `start` is its first compute slice."""

    id: int
    profile_id: int
    uuid: str
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeWish:
    """A compute instance that is to be; without a `start` on the first slices that are free."""

    profile_id: int
    uuid: str
    start: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceState:
    """A GPU instance that exists."""

    id: int
    profile_id: int
    placement: Placement
    computes: tuple[ComputeState, ...] = ()

    def compute(self, compute_id: int) -> ComputeState:
        """The compute instance of that id; NOT_FOUND."""
        found = next((c for c in self.computes if c.id == compute_id), None)
        return found or _refuse(Code.NOT_FOUND, f"compute instance {self.id}/{compute_id}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MigState:
    """A GPU's mode and instances. `created` counts all compute instances ever made: each gets a UUID of its own."""

    mode: MigMode = MigMode.DISABLED
    pending: MigMode = MigMode.DISABLED
    created: int = 0
    instances: tuple[InstanceState, ...] = ()

    def instance(self, instance_id: int) -> InstanceState:
        """The GPU instance of that id; NOT_FOUND."""
        found = next((i for i in self.instances if i.id == instance_id), None)
        return found or _refuse(Code.NOT_FOUND, f"GPU instance {instance_id}")


def with_mode(board: Board, state: MigState, mode: MigMode, *, busy: bool) -> tuple[MigState, Code]:
    """The state after `nvmlDeviceSetMigMode`, and why the mode is only pending. Instances forbid leaving MIG."""
    if mode == state.mode:
        return replace(state, pending=mode), Code.SUCCESS
    if state.instances:
        _refuse(Code.IN_USE, f"leaving MIG with {len(state.instances)} instances")
    pending = replace(state, pending=mode)
    if busy:
        return pending, Code.IN_USE
    if not board.is_mig_resetless:
        return pending, Code.RESET_REQUIRED
    return replace(pending, mode=mode), Code.SUCCESS


def after_reset(state: MigState, *, busy: bool) -> MigState:
    """The state after `nvidia-smi --gpu-reset`, which whoever has the GPU open prevents: the pending mode, and no instances."""
    if busy:
        _refuse(Code.IN_USE, "resetting a GPU in use")
    return replace(state, mode=state.pending, instances=())


def with_instance(
    board: Board, state: MigState, profile_id: int, placement: Placement
) -> tuple[MigState, int]:
    """The state with one more GPU instance, and its id: the lowest free one."""
    if state.mode is not MigMode.ENABLED:
        _refuse(Code.NOT_SUPPORTED, "GPU instances without MIG mode")
    cut = cut_of(board, profile_id)
    if placement not in cut.placements:
        _refuse(Code.INVALID_ARGUMENT, f"profile {profile_id} at {placement}")
    if not _has_room(board, state, cut, placement):
        _refuse(Code.INSUFFICIENT_RESOURCES, f"profile {profile_id} at {placement}")
    new = InstanceState(
        id=_lowest_free({i.id for i in state.instances}, first=1),
        profile_id=profile_id,
        placement=placement,
    )
    return replace(state, instances=(*state.instances, new)), new.id


def without_instance(state: MigState, instance_id: int) -> MigState:
    """The state without that GPU instance, which must be empty."""
    gone = state.instance(instance_id)
    if gone.computes:
        _refuse(Code.IN_USE, f"GPU instance {instance_id} with compute instances")
    return replace(state, instances=tuple(i for i in state.instances if i is not gone))


def with_compute(
    board: Board, state: MigState, instance_id: int, wanted: ComputeWish
) -> tuple[MigState, int]:
    """The state with one more compute instance in that GPU instance, and its id: the lowest free one."""
    instance = state.instance(instance_id)
    slices = cut_of(board, instance.profile_id).profile.slices
    size = COMPUTE_SLICES.get(wanted.profile_id, slices + 1)
    if size > slices:
        _refuse(Code.NOT_SUPPORTED, f"compute profile {wanted.profile_id} in {slices} slices")
    starts = range(0, slices - size + 1, size)
    if wanted.start is not None and wanted.start not in starts:
        _refuse(Code.INVALID_ARGUMENT, f"compute profile {wanted.profile_id} at {wanted.start}")
    taken = {
        slot
        for one in instance.computes
        for slot in range(one.start, one.start + COMPUTE_SLICES[one.profile_id])
    }
    free = [start for start in starts if taken.isdisjoint(range(start, start + size))]
    chosen = [start for start in free if wanted.start in {None, start}]
    if not chosen:
        _refuse(Code.INSUFFICIENT_RESOURCES, f"{size} compute slices in {slices}")
    compute_id = _lowest_free({c.id for c in instance.computes}, first=0)
    new = ComputeState(
        id=compute_id, profile_id=wanted.profile_id, uuid=wanted.uuid, start=chosen[0]
    )
    filled = replace(instance, computes=(*instance.computes, new))
    return replace(_exchanged(state, filled), created=state.created + 1), new.id


def without_compute(state: MigState, instance_id: int, compute_id: int, *, busy: bool) -> MigState:
    """The state without that compute instance, which must not be in use."""
    instance = state.instance(instance_id)
    gone = instance.compute(compute_id)
    if busy:
        _refuse(Code.IN_USE, f"compute instance {gone.uuid}")
    left = tuple(c for c in instance.computes if c is not gone)
    return _exchanged(state, replace(instance, computes=left))


def cut_of(board: Board, profile_id: int) -> Cut:
    """The cut whose profile has that id."""
    found = next((cut for cut in board.cuts if cut.profile.id == profile_id), None)
    return found or _refuse(Code.NOT_SUPPORTED, f"GPU instance profile {profile_id}")


def _has_room(board: Board, state: MigState, cut: Cut, placement: Placement) -> bool:
    taken = {slot for instance in state.instances for slot in _slots(instance.placement)}
    cuts = [cut, *(cut_of(board, instance.profile_id) for instance in state.instances)]
    totals = [
        max(column) for column in zip(*(_amounts(c.profile) for c in board.cuts), strict=True)
    ]
    sums = [sum(column) for column in zip(*(_amounts(c.profile) for c in cuts), strict=True)]
    enough = all(used <= total for used, total in zip(sums, totals, strict=True))
    return enough and taken.isdisjoint(_slots(placement))


def _amounts(profile: GpuProfile) -> tuple[int, ...]:
    return (
        profile.slices,
        profile.copy_engines,
        profile.decoders,
        profile.encoders,
        profile.jpeg_engines,
        profile.ofa_engines,
    )


def _slots(placement: Placement) -> range:
    return range(placement.start, placement.start + placement.size)


def _lowest_free(taken: Collection[int], *, first: int) -> int:
    numbers: Iterator[int] = count(first)
    return next(number for number in numbers if number not in taken)


def _exchanged(state: MigState, new: InstanceState) -> MigState:
    return replace(state, instances=tuple(new if i.id == new.id else i for i in state.instances))


def _refuse(code: Code, what: str) -> NoReturn:
    raise NvmlError(code, f"simulated NVML: {what}")
