"""The hardware changes, one NVML change each: MIG mode, GPU instances, compute instances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from dra_driver.model.device import CreateStage, DestroyStage, Placement, SetMode
from dra_driver.model.errors import VendorError
from dra_driver.vendors.nvidia.discovery import (
    COMPUTE_INSTANCE,
    GPU_INSTANCE,
    MIG,
    WHOLE,
    compute_profiles,
    explained,
    gpu_profiles,
    is_switchable,
)
from dra_driver.vendors.nvidia.mig_names import Identity, part_name
from dra_driver.vendors.nvidia.nvml import (
    Code,
    GpuProfile,
    Handle,
    MigMode,
    Nvml,
    NvmlError,
    code_name,
)
from dra_driver.vendors.nvidia.splits import PART_SLICES
from dra_driver.vendors.nvidia.users import SwitchingNvml

log = structlog.get_logger(__name__)

_MODES = {WHOLE: MigMode.DISABLED, MIG: MigMode.ENABLED}
_GONE = frozenset({Code.NOT_FOUND, Code.NOT_SUPPORTED, Code.GPU_IS_LOST})
"""How NVML says that an instance is not there, or will not be when its GPU is: NOT_SUPPORTED with MIG off."""


def set_mode(nvml: SwitchingNvml, change: SetMode) -> str:
    """Bring the GPU into the mode now, and return the mode in which it was; what cannot be now is not left pending.

    A GPU that would have to be reset is not touched: a reset ends everything on it, and on some boards takes others along.
    """
    if change.mode not in _MODES:
        raise VendorError(f"GPU {change.gpu}: mode {change.mode!r} is neither {WHOLE} nor {MIG}")
    doing, wanted = f"GPU {change.gpu}: changing to mode {change.mode}", _MODES[change.mode]
    with explained(doing):
        gpu = nvml.gpu_by_address(change.gpu)
        former = MigMode(nvml.mig_mode(gpu)[0])
        if former is not wanted:
            _refuse_with_instances(nvml, gpu, doing)
            if not is_switchable(nvml, gpu):
                raise _refusal(
                    f"{doing} needs a reset; let an administrator do both: "
                    f"nvidia-smi -i {change.gpu} -mig {wanted:d}, then nvidia-smi -i {change.gpu} --gpu-reset"
                )
            status = nvml.set_mig_mode(gpu, wanted)
            if status != Code.SUCCESS or nvml.mig_mode(gpu)[0] != wanted:
                nvml.set_mig_mode(gpu, former)
                raise _refusal(f"{doing}: {_obstacle(nvml, gpu, status)}")
    return MIG if former is MigMode.ENABLED else WHOLE


def create_stage(nvml: Nvml, change: CreateStage) -> str:
    """Create the stage and return its identity."""
    doing = (
        f"GPU {change.gpu}: creating the {change.stage} of {change.profile} "
        f"at position {change.placement.start}"
    )
    with explained(doing):
        gpu = nvml.gpu_by_address(change.gpu)
        profile, slices = _profile(nvml, gpu, change)
        if change.stage == GPU_INSTANCE and change.shared:
            return str(_shared(nvml, gpu, profile, change, doing))
        if change.stage == GPU_INSTANCE:
            made = nvml.create_gpu_instance(gpu, profile.id, change.placement)
            with _made(doing):
                return str(Identity(nvml.gpu_instance_info(made).id))
        if change.stage == COMPUTE_INSTANCE:
            return str(_create_compute(nvml, gpu, (profile, slices), change, doing))
    raise VendorError(f"{doing}: a MIG partition has no such stage")


def destroy_stage(nvml: Nvml, change: DestroyStage) -> str:
    """Destroy what has that identity, which is returned; already gone, or another's by now, counts as done.

    So does one on a lost GPU. Only a reset or a reboot brings that GPU back, and no instance outlives either; until then nobody
    can use the instance, and a claim that waited for it would keep its pod from ending. Were one left after all, the next
    look would find it, as an instance that somebody else made.
    """
    identity, created = Identity.parse(change.identity, change.gpu), change.created
    with explained(f"GPU {change.gpu}: destroying the {created.stage} {change.identity}"):
        try:
            gpu = nvml.gpu_by_address(change.gpu)  # one that is gone took its instances along
            instance = nvml.gpu_instance(gpu, identity.instance)
            profile, slices = _profile(nvml, gpu, created)
            if not _is_what_was_made(nvml, instance, profile, created):
                return change.identity
            if identity.compute is None:
                _destroy_gpu_instance(nvml, instance, profile)
                return change.identity
            compute = nvml.compute_instance(instance, identity.compute)
            if slices == profile.slices or _is_that_part(nvml, compute, slices, created):
                nvml.destroy_compute_instance(compute)
        except NvmlError as error:
            if error.code not in _GONE:
                raise
    return change.identity


def _is_what_was_made(
    nvml: Nvml, instance: Handle, profile: GpuProfile, created: CreateStage
) -> bool:
    """Numbers of instances are used again, so what it is gets checked before anything is done to it."""
    info = nvml.gpu_instance_info(instance)
    return (info.profile_id, info.placement) == (profile.id, created.placement.undivided)


def _destroy_gpu_instance(nvml: Nvml, instance: Handle, profile: GpuProfile) -> None:
    """Our parts of it go before. So what keeps it in use and does not fill it is somebody else's, and so is it from then on."""
    try:
        nvml.destroy_gpu_instance(instance)
    except NvmlError as error:
        if error.code != Code.IN_USE or not _has_parts(nvml, instance, profile):
            raise
        log.warning("a GPU instance stays: somebody else has compute instances in it")


def _has_parts(nvml: Nvml, instance: Handle, profile: GpuProfile) -> bool:
    """Whether the GPU instance is split, and not filled by one compute instance, which may be ours without our knowing its number."""
    found = {
        slices: any(
            nvml.compute_instances(instance, one.id)
            for one in compute_profiles(nvml, instance, slices)
        )
        for slices in range(1, profile.slices + 1)
    }
    return any(found.values()) and not found[profile.slices]


def _is_that_part(nvml: Nvml, compute: Handle, slices: int, created: CreateStage) -> bool:
    """Compute instances' numbers are used again as well, for other parts; one that fills its GPU instance has no other beside it."""
    return nvml.compute_instance_info(compute).start == slices * created.placement.part


def _refuse_with_instances(nvml: Nvml, gpu: Handle, doing: str) -> None:
    """Say which instances are in the way: NVML would only say that the GPU is in use."""
    if nvml.mig_mode(gpu)[0] != MigMode.ENABLED:
        return
    there = [
        f"{name} at {nvml.gpu_instance_info(instance).placement.start}"
        for name, profile in gpu_profiles(nvml, gpu)
        for instance in nvml.gpu_instances(gpu, profile.id)
    ]
    if there:
        raise _refusal(f"{doing}: instances exist ({', '.join(there)}); destroy them first")


def _obstacle(nvml: SwitchingNvml, gpu: Handle, status: int) -> str:
    users = nvml.users(gpu)
    if users:
        return f"it is in use by {', '.join(users)}; end them (monitoring too)"
    return (
        f"not possible now, NVML says {code_name(status)}; end what uses the GPU (monitoring too), "
        "or let an administrator change the mode, which needs a reset then"
    )


def _refusal(message: str) -> VendorError:
    """The GPU is as it was; somebody can change that."""
    return VendorError(message, retryable=True, refused=True)


def _profile(nvml: Nvml, gpu: Handle, change: CreateStage) -> tuple[GpuProfile, int]:
    """The GPU instance's profile, and how many of its compute slices the change is about: all, or those of a part."""
    known = []
    for name, profile in gpu_profiles(nvml, gpu):  # asked for one by one, the usual ones first
        if change.profile == name:
            return profile, profile.slices
        for slices in PART_SLICES:
            if change.profile == part_name(slices, name) and slices < profile.slices:
                return profile, slices
        known.append(name)
    raise VendorError(f"GPU {change.gpu}: profile {change.profile!r} is none of {', '.join(known)}")


def _shared(
    nvml: Nvml, gpu: Handle, profile: GpuProfile, change: CreateStage, doing: str
) -> Identity:
    """The GPU instance that another claim made."""
    for instance in nvml.gpu_instances(gpu, profile.id):
        info = nvml.gpu_instance_info(instance)
        if info.placement == change.placement and change.parent in {None, str(Identity(info.id))}:
            return Identity(info.id)
    raise _refusal(
        f"{doing}: the instance that other claims have parts of is gone; delete their pods"
    )


def _create_compute(
    nvml: Nvml, gpu: Handle, sized: tuple[GpuProfile, int], change: CreateStage, doing: str
) -> Identity:
    """Fill the parent, or a part of it. Its number may by now be another's, so what it is gets checked first."""
    profile, slices = sized
    parent = Identity.parse(change.parent or "", change.gpu)
    instance = nvml.gpu_instance(gpu, parent.instance)
    if not _is_what_was_made(nvml, instance, profile, change):
        raise VendorError(f"{doing}: {parent} is another instance by now; prepare the claim anew")
    fitting = compute_profiles(nvml, instance, slices)
    if not fitting:
        raise VendorError(f"{doing}: {parent} has no compute profile of {slices} slices")
    if slices == profile.slices:
        made = nvml.create_compute_instance(instance, fitting[0].id)
    else:  # the smallest of that size, as only of that there are as many as there are parts
        place = Placement(slices * change.placement.part, slices)
        made = nvml.create_compute_instance(instance, fitting[-1].id, place)
    with _made(doing):
        return Identity(parent.instance, nvml.compute_instance_info(made).id)


@contextmanager
def _made(doing: str) -> Iterator[None]:
    """What fails within is no refusal: the instance exists, only its number is not known."""
    try:
        yield
    except NvmlError as error:
        raise VendorError(
            f"{doing}: made, but NVML does not say its number: {code_name(error.code)}",
            retryable=error.retryable,
        ) from error
