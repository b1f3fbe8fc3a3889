"""The boards that the contract is checked on, and how a test refers to what is on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dra_driver.model.device import Placement
from dra_driver.vendors.nvidia.nvml import (
    COMPUTE_PROFILE_INDEXES,
    GPU_PROFILE_INDEXES,
    Code,
    ComputeProfile,
    GpuProfile,
    Handle,
    Nvml,
    NvmlError,
)

MODELS = (
    "A30",
    "A100-SXM4-40GB",
    "A100-SXM4-80GB",
    "H100-SXM5-80GB",
    "H100-NVL-94GB",
    "H200-SXM5-141GB",
    "B200-SXM-180GB",
    "RTX-PRO-6000-96GB",
)

on_all_boards = pytest.mark.parametrize("model", MODELS)


def first(nvml: Nvml) -> Handle:
    """The GPU with the lowest address."""
    return nvml.gpu_by_address(nvml.pci_addresses()[0])


def refusal(ask: Callable[[], object]) -> int:
    """The code with which NVML refuses."""
    with pytest.raises(NvmlError) as refused:
        ask()
    return refused.value.code


def profiles(nvml: Nvml, gpu: Handle) -> Iterator[tuple[int, GpuProfile]]:
    """All that the GPU has, by their indexes."""
    for index in GPU_PROFILE_INDEXES:
        with offered():
            yield index, nvml.gpu_profile(gpu, index)


def compute_profiles(nvml: Nvml, instance: Handle) -> Iterator[ComputeProfile]:
    """All that the GPU instance has."""
    for index in COMPUTE_PROFILE_INDEXES:
        with offered():
            yield nvml.compute_profile(instance, index)


@contextmanager
def offered() -> Iterator[None]:
    """What is asked for may be missing, in one of the two ways in which drivers say so."""
    try:
        yield
    except NvmlError as error:
        if error.code not in {Code.NOT_SUPPORTED, Code.INVALID_ARGUMENT}:
            raise


def smallest(nvml: Nvml, gpu: Handle) -> tuple[GpuProfile, tuple[Placement, ...]]:
    """The plain 1g profile and its places."""
    profile = nvml.gpu_profile(gpu, 0)
    return profile, nvml.placements(gpu, profile.id)


def largest(nvml: Nvml, gpu: Handle) -> tuple[GpuProfile, Placement]:
    """The profile that takes the whole GPU, and its only place."""
    profile = max((one for _, one in profiles(nvml, gpu)), key=lambda one: one.slices)
    (place,) = nvml.placements(gpu, profile.id)
    return profile, place
