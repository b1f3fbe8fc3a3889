"""What a container gets."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from dra_driver.model.device import (
    Target,
)
from dra_driver.model.errors import VendorError
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml

Simulate = Callable[..., SimulatedNvml]

GPU = "0000:1b:00.0"


def test_a_gpu_that_is_not_there_is_named(simulate: Simulate) -> None:
    """Changes and edits of an unknown address say which."""
    backend = NvidiaBackend(simulate())
    with pytest.raises(VendorError, match=re.escape("0000:99:00.0")):
        backend.edits(Target(gpu="0000:99:00.0"))


def test_a_gpu_that_is_not_bound_may_come_back(simulate: Simulate) -> None:
    """Reading it names it, and invites a retry."""
    with pytest.raises(VendorError, match=re.escape("0000:99:00.0 is not bound")) as refused:
        NvidiaBackend(simulate()).read("0000:99:00.0")
    assert refused.value.retryable


def test_hardware_is_known_by_its_uuids(simulate: Simulate) -> None:
    """A GPU by its own, a partition by its GPU's and its own, as discovery reports them."""
    backend = NvidiaBackend(simulate(instances=[{"profile": "1g.10gb", "start": 6}]))
    (gpu,) = discover(backend).gpus
    (instance,) = gpu.instances
    assert backend.identify(Target(gpu=GPU)) == (gpu.uuid,)
    target = Target(gpu=GPU, instance=instance.identity)
    assert backend.identify(target) == (gpu.uuid, instance.uuid)


def test_a_partition_made_anew_is_another_one(simulate: Simulate) -> None:
    """With the same numbers, place and profile; and one that is gone is named."""
    nvml = simulate(instances=[{"profile": "1g.10gb", "start": 6}])
    backend, target = NvidiaBackend(nvml), Target(gpu=GPU, instance="gi-1/ci-0")
    former = backend.identify(target)
    instance = nvml.gpu_instance(nvml.gpu_by_address(GPU), 1)
    nvml.destroy_compute_instance(nvml.compute_instance(instance, 0))
    with pytest.raises(VendorError, match=f"{GPU}: partition gi-1/ci-0"):
        backend.identify(target)
    nvml.create_compute_instance(instance, 0)
    assert backend.identify(target)[0] == former[0]
    assert backend.identify(target)[1] != former[1]


def test_a_container_with_a_whole_gpu_gets_its_nodes(simulate: Simulate) -> None:
    """Control, memory management, and the one GPU; nothing of its neighbours."""
    backend = NvidiaBackend(simulate(count=2))
    edits = backend.edits(Target(gpu="0000:43:00.0"))
    uuid = discover(backend).gpus[1].uuid
    assert edits.env == (("NVIDIA_VISIBLE_DEVICES", "void"), ("DRA_DEVICE_0000_43_00_0", uuid))
    assert [node.path for node in edits.device_nodes] == [
        "/dev/nvidiactl",
        "/dev/nvidia-uvm",
        "/dev/nvidia-uvm-tools",
        "/dev/nvidia1",
    ]
    assert {node.host_path for node in edits.device_nodes} == {None}


def test_a_container_with_a_partition_gets_its_two_rights(simulate: Simulate) -> None:
    """The parent's node and the capability nodes of the GPU instance and the compute instance."""
    nvml = simulate(instances=[{"profile": "1g.10gb", "start": 6}])
    edits = NvidiaBackend(nvml).edits(Target(gpu=GPU, instance="gi-1/ci-0"))
    paths = [node.path for node in edits.device_nodes]
    assert paths[3:] == [
        "/dev/nvidia0",
        "/dev/nvidia-caps/nvidia-cap12",
        "/dev/nvidia-caps/nvidia-cap13",
    ]
    assert edits.env[1][0] == "DRA_DEVICE_0000_1B_00_0_MIG_6"


def test_two_partitions_of_one_gpu_do_not_collide_in_a_container(simulate: Simulate) -> None:
    """Their variables differ, so both UUIDs arrive."""
    spec = [{"profile": "1g.10gb", "start": start} for start in (0, 1)]
    backend = NvidiaBackend(simulate(instances=spec))
    targets = [Target(gpu=GPU, instance=i.identity) for i in discover(backend).gpus[0].instances]
    variables = [backend.edits(target).env[1] for target in targets]
    assert len(dict(variables)) == len({uuid for _, uuid in variables}) == 2
