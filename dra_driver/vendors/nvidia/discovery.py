"""What NVML says about one GPU, as the vendor-neutral model: nothing here changes hardware."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from dra_driver.model.device import Gpu, Instance, Partitioning, PartitionProfile, Vendor
from dra_driver.model.slices import AttributeValue, Version
from dra_driver.vendors.nvidia.mig_names import Identity, part_name, profile_name
from dra_driver.vendors.nvidia.nvml import (
    COMPUTE_PROFILE_INDEXES,
    GPU_PROFILE_INDEXES,
    Architecture,
    Code,
    ComputeProfile,
    GpuProfile,
    Handle,
    MigMode,
    Nvml,
    NvmlError,
)
from dra_driver.vendors.nvidia.splits import PART_SLICES, Splits

WHOLE, MIG = "whole", "mig"
GPU_INSTANCE, COMPUTE_INSTANCE = "gpu-instance", "compute-instance"

T = TypeVar("T")

_ABSENT = frozenset(
    {Code.NOT_SUPPORTED, Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.FUNCTION_NOT_FOUND}
)
"""How drivers say that there is no such thing (any more); INVALID_ARGUMENT for profiles newer than the driver."""

_CORES_PER_MULTIPROCESSOR = {(6, 0): 64, (7, 0): 64, (7, 2): 64, (7, 5): 64, (8, 0): 64}
"""By compute capability, for the kinds that differ from the 128 of all the others we can meet (CUDA C++ guide)."""


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """NvmlError from within says what was being done, to which GPU, instead of which function refused."""
    try:
        yield
    except NvmlError as error:
        raise NvmlError(error.code, doing) from error


def read_gpu(nvml: Nvml, pci_address: str, *, index: int, splits: Splits) -> Gpu:
    """Everything about the GPU; NvmlError if it does not answer."""
    handle = nvml.gpu_by_address(pci_address)
    place, capability = nvml.pci_place(pci_address), nvml.compute_capability(handle)
    profiles = dict(gpu_profiles(nvml, handle))
    return Gpu(
        vendor=Vendor.NVIDIA,
        pci_address=pci_address,
        uuid=nvml.uuid(handle),
        index=index,
        product_name=nvml.name(handle),
        architecture=_architecture(nvml.architecture(handle)),
        memory_bytes=_if_there(partial(nvml.memory_bytes, handle)) or 0,
        compute_units=_multiprocessors(nvml, handle, capability, profiles),
        driver_version=nvml.driver_version(),
        compute_capability="{}.{}".format(*capability),
        numa_node=place.numa_node,
        pcie_root=place.root,
        engines=MappingProxyType(_totals(profiles, _engines)),
        extras=MappingProxyType(_versions(nvml, handle) | _pending_mode(nvml, handle)),
        partitioning=_partitioning(nvml, handle, profiles, splits),
        instances=_instances(nvml, handle, profiles),
    )


def gpu_profiles(nvml: Nvml, handle: Handle) -> Iterator[tuple[str, GpuProfile]]:
    """Name and profile of every way to cut the GPU; none where the driver does not say while MIG is off."""
    memory_bytes = _if_there(partial(nvml.memory_bytes, handle))
    for index in GPU_PROFILE_INDEXES if memory_bytes else ():
        profile = _if_there(partial(nvml.gpu_profile, handle, index))
        if memory_bytes and profile:
            yield profile_name(index, profile, memory_bytes), profile


def is_switchable(nvml: Nvml, handle: Handle) -> bool:
    """Whether the mode changes without a reset; drivers that cannot say so cannot do it either."""
    return bool(_if_there(partial(nvml.is_mig_resetless, handle)))


def compute_profiles(nvml: Nvml, instance: Handle, slices: int) -> tuple[ComputeProfile, ...]:
    """The compute profiles that take so many slices of the GPU instance, most multiprocessors first.

    There may be several: some boards have a second 7-slice profile for NVLink, or a larger 1-slice one.
    """
    asked = (_if_there(partial(nvml.compute_profile, instance, i)) for i in COMPUTE_PROFILE_INDEXES)
    fitting = (profile for profile in asked if profile is not None and profile.slices == slices)
    return tuple(sorted(fitting, key=lambda profile: -profile.multiprocessors))


def _partitioning(
    nvml: Nvml, handle: Handle, profiles: Mapping[str, GpuProfile], splits: Splits
) -> Partitioning | None:
    modes = _if_there(partial(nvml.mig_mode, handle))
    asked = (_profile(nvml, handle, name, profile) for name, profile in profiles.items())
    cuts = tuple(cut for cut in asked if cut.placements)
    if modes is None or not cuts:
        return None
    whole = Partitioning(
        mode=MIG if modes[0] == MigMode.ENABLED else WHOLE,
        whole_mode=WHOLE,
        switchable=is_switchable(nvml, handle),
        positions=max(p.start + p.size for cut in cuts for p in cut.placements),
        counters=MappingProxyType(_totals(profiles, _amounts)),
        profiles=cuts,
    )
    return splits.offered(whole)


def _profile(nvml: Nvml, handle: Handle, name: str, profile: GpuProfile) -> PartitionProfile:
    return PartitionProfile(
        name=name,
        mode=MIG,
        memory_bytes=profile.memory_mib << 20,
        compute_units=profile.multiprocessors,
        placements=_if_there(partial(nvml.placements, handle, profile.id)) or (),
        consumes=MappingProxyType(_amounts(profile)),
        stages=(GPU_INSTANCE, COMPUTE_INSTANCE),
    )


def _instances(
    nvml: Nvml, handle: Handle, profiles: Mapping[str, GpuProfile]
) -> tuple[Instance, ...]:
    uuids = _if_there(partial(nvml.mig_uuids, handle))
    if uuids is None:
        return ()
    found = (
        one
        for name, profile in profiles.items()
        for instance in _if_there(partial(nvml.gpu_instances, handle, profile.id)) or ()
        for one in _if_there(partial(_instance, nvml, instance, (name, profile), uuids)) or ()
    )
    return tuple(sorted(found, key=lambda one: one.placement))


def _instance(
    nvml: Nvml,
    handle: Handle,
    named: tuple[str, GpuProfile],
    uuids: Mapping[tuple[int, int], str],
) -> tuple[Instance, ...]:
    """The GPU instance, and the compute instances between which it is split, if it is: then it is no partition itself.

    One whose MIG device appeared only after `uuids` had been read counts as incomplete.
    """
    name, profile = named
    info = nvml.gpu_instance_info(handle)
    filled = (
        nvml.compute_instance_info(compute).id
        for candidate in compute_profiles(nvml, handle, profile.slices)
        for compute in nvml.compute_instances(handle, candidate.id)
    )
    compute_id = next((number for number in filled if (info.id, number) in uuids), None)
    bare = Instance(
        profile=name,
        placement=info.placement,
        identity=str(Identity(info.id, compute_id)),
        uuid="" if compute_id is None else uuids[info.id, compute_id],
        complete=compute_id is not None,
    )
    if bare.complete or info.id not in {instance for instance, _ in uuids}:
        return (bare,)
    return (bare, *_parts(nvml, handle, bare, uuids))


def _parts(
    nvml: Nvml, handle: Handle, whole: Instance, uuids: Mapping[tuple[int, int], str]
) -> Iterator[Instance]:
    """The compute instances of a size that can be offered; others are nobody's."""
    number = Identity.parse(whole.identity, whole.profile).instance
    for slices in PART_SLICES:
        for profile in compute_profiles(nvml, handle, slices):
            for compute in nvml.compute_instances(handle, profile.id):
                info = nvml.compute_instance_info(compute)
                if (number, info.id) in uuids:
                    yield Instance(
                        profile=part_name(slices, whole.profile),
                        placement=replace(whole.placement, part=info.start // slices),
                        identity=str(Identity(number, info.id)),
                        uuid=uuids[number, info.id],
                    )


def _amounts(profile: GpuProfile) -> dict[str, int]:
    """What a partition takes from the GPU's counters."""
    return {"compute-slices": profile.slices} | _engines(profile)


def _engines(profile: GpuProfile) -> dict[str, int]:
    engines = {
        "copy-engines": profile.copy_engines,
        "decoders": profile.decoders,
        "encoders": profile.encoders,
        "jpeg-engines": profile.jpeg_engines,
        "ofa-engines": profile.ofa_engines,
    }
    return {name: amount for name, amount in engines.items() if amount}


def _totals(
    profiles: Mapping[str, GpuProfile], amounts: Callable[[GpuProfile], dict[str, int]]
) -> dict[str, int]:
    """What the GPU has of each: NVML has no call for it, but some profile always gets all there is."""
    totals: Counter[str] = Counter()
    for profile in profiles.values():
        totals |= Counter(amounts(profile))
    return dict(totals)


def _multiprocessors(
    nvml: Nvml, handle: Handle, capability: tuple[int, int], profiles: Mapping[str, GpuProfile]
) -> int:
    """All of the GPU's, a few more than any partition gets; the largest partition's where cores are not counted."""
    cores = _if_there(partial(nvml.core_count, handle))
    if cores is None:
        return max((profile.multiprocessors for profile in profiles.values()), default=0)
    return cores // _CORES_PER_MULTIPROCESSOR.get(capability, 128)


def _architecture(number: int) -> str:
    known = next((known.name for known in Architecture if known == number), "unknown")
    return known.capitalize()


def _versions(nvml: Nvml, handle: Handle) -> dict[str, AttributeValue]:
    cuda = nvml.cuda_version()
    return {
        "cudaDriverVersion": Version(f"{cuda // 1000}.{cuda % 1000 // 10}.0"),
        "pciDeviceId": f"0x{nvml.pci_device_id(handle):04x}",
    }


def _pending_mode(nvml: Nvml, handle: Handle) -> dict[str, AttributeValue]:
    """The mode that the next reset or reboot brings, where it is another one: an administrator's, as we leave none pending."""
    current, pending = _if_there(partial(nvml.mig_mode, handle)) or (None, None)
    if current == pending:
        return {}
    return {"modeAfterReset": MIG if pending == MigMode.ENABLED else WHOLE}


def _if_there(ask: Callable[[], T]) -> T | None:
    """The answer, or None where the GPU, its mode or the driver has no such thing."""
    try:
        return ask()
    except NvmlError as error:
        if error.code in _ABSENT:
            return None
        raise
