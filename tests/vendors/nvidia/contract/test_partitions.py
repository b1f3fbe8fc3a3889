"""A claim's partition as the node plugin makes it, finds it again and takes it away: the backend on NVML of each kind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dra_driver.model.device import CreateStage, DestroyStage, Gpu, Instance, SetMode, Target
from dra_driver.model.errors import VendorError
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from tests.vendors.nvidia.contract.boards import on_all_boards
from tests.vendors.nvidia.contract.conftest import Hardware


def only_gpu(backend: NvidiaBackend) -> Gpu:
    (gpu,) = discover(backend).gpus
    return gpu


def make(backend: NvidiaBackend, gpu: Gpu, name: str, number: int = 0) -> list[DestroyStage]:
    """Each stage of a partition at the profile's place of that number; how to undo them, last first."""
    assert gpu.partitioning is not None
    profile = next(one for one in gpu.partitioning.profiles if one.name == name)
    place, undo, identity = profile.placements[number], list[DestroyStage](), None
    for stage in profile.stages:
        created = CreateStage(
            gpu=gpu.pci_address, profile=name, placement=place, stage=stage, parent=identity
        )
        identity = backend.partition(created)
        undo.insert(0, DestroyStage(created=created, identity=identity))
    return undo


def names(gpu: Gpu) -> list[str]:
    """Profiles of the GPU, smallest first."""
    assert gpu.partitioning is not None
    return [profile.name for profile in gpu.partitioning.profiles]


@on_all_boards
def test_every_partition_is_made_recognised_and_destroyed(hardware: Hardware, model: str) -> None:
    """Of each profile: complete, where it was asked for, known by its own UUID; and nothing is left of it."""
    backend = NvidiaBackend(hardware(model=model, mode="mig"))
    gpu, uuids = only_gpu(backend), set[str]()
    for name in names(gpu):
        undo = make(backend, gpu, name)
        made = undo[-1].created
        (found,) = only_gpu(backend).instances
        assert found == Instance(
            profile=name,
            placement=made.placement,
            identity=undo[0].identity,
            uuid=found.uuid,
            complete=True,
        )
        target = Target(gpu=gpu.pci_address, instance=found.identity)
        assert backend.identify(target) == (gpu.uuid, found.uuid)
        uuids.add(found.uuid)
        for step in undo:
            backend.partition(step)
        assert only_gpu(backend).instances == ()
    assert len(uuids) == len(names(gpu))


@on_all_boards
def test_a_container_gets_the_nodes_of_its_partition(hardware: Hardware, model: str) -> None:
    """Its GPU's, and those of both rights, which its neighbour on the same GPU does not get."""
    backend = NvidiaBackend(hardware(model=model, mode="mig"))
    gpu = only_gpu(backend)
    identities = [make(backend, gpu, names(gpu)[0], number)[0].identity for number in range(2)]
    rights = []
    for identity in identities:
        edits = backend.edits(Target(gpu=gpu.pci_address, instance=identity))
        paths = {node.path for node in edits.device_nodes}
        assert "/dev/nvidia0" in paths
        rights.append({path for path in paths if path.startswith("/dev/nvidia-caps/")})
    assert [len(one) for one in rights] == [2, 2]
    assert rights[0].isdisjoint(rights[1])


def test_a_half_made_partition_is_seen_and_taken_away(hardware: Hardware) -> None:
    """A GPU instance without its compute instance is incomplete; destroying it twice is no error."""
    backend = NvidiaBackend(hardware(mode="mig"))
    gpu = only_gpu(backend)
    full, bare = make(backend, gpu, "2g.20gb", 1)
    backend.partition(full)
    (found,) = only_gpu(backend).instances
    assert (found.complete, found.uuid) == (False, "")
    for _ in range(2):
        backend.partition(bare)
    assert only_gpu(backend).instances == ()


def test_a_partition_of_another_is_left_alone(hardware: Hardware) -> None:
    """What stands at the number that a record names, but is of another profile, is not what the record's claim made."""
    backend = NvidiaBackend(hardware(mode="mig"))
    gpu = only_gpu(backend)
    _, bare = make(backend, gpu, "7g.80gb")
    stranger = replace(bare.created, profile="1g.10gb")
    backend.partition(replace(bare, created=stranger))
    assert len(only_gpu(backend).instances) == 1


def test_room_that_is_gone_is_an_error_that_names_everything(hardware: Hardware) -> None:
    """The GPU, the profile and the place."""
    backend = NvidiaBackend(hardware(mode="mig"))
    gpu = only_gpu(backend)
    make(backend, gpu, "7g.80gb")
    with pytest.raises(VendorError, match=rf"{gpu.pci_address}.*1g.10gb at position 0.*slices"):
        make(backend, gpu, "1g.10gb")


def test_the_mode_follows_the_plan(hardware: Hardware) -> None:
    """Into MIG and back; with a partition on it the GPU stays, and the message names what is in the way."""
    backend = NvidiaBackend(hardware())
    gpu = only_gpu(backend)
    assert backend.partition(SetMode(gpu=gpu.pci_address, mode="mig")) == "whole"
    undo = make(backend, gpu, "1g.10gb", 6)
    leave = SetMode(gpu=gpu.pci_address, mode="whole")
    with pytest.raises(VendorError, match=r"1g\.10gb at 6"):
        backend.partition(leave)
    for step in undo:
        backend.partition(step)
    assert backend.partition(leave) == "mig"
    assert only_gpu(backend) == gpu
