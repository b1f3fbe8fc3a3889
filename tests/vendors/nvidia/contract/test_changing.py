"""Set, then read back: modes, GPU instances and compute instances of every board, simulated in Python and in C."""

from __future__ import annotations

from functools import partial

import pytest

from dra_driver.model.device import Placement
from dra_driver.vendors.nvidia.nvml import Code, ComputeInstance, GpuInstance, MigMode
from tests.vendors.nvidia.contract.boards import (
    compute_profiles,
    first,
    largest,
    on_all_boards,
    profiles,
    refusal,
    smallest,
)
from tests.vendors.nvidia.contract.conftest import Hardware


@on_all_boards
def test_a_mode_is_current_at_once_or_pending(hardware: Hardware, model: str) -> None:
    """Since Hopper the mode is what was set; before, it waits for a reset and says so."""
    nvml = hardware(model=model)
    gpu = first(nvml)
    status = nvml.set_mig_mode(gpu, MigMode.ENABLED)
    if nvml.is_mig_resetless(gpu):
        assert (status, nvml.mig_mode(gpu)) == (Code.SUCCESS, (MigMode.ENABLED, MigMode.ENABLED))
    else:
        assert status == Code.RESET_REQUIRED
        assert nvml.mig_mode(gpu) == (MigMode.DISABLED, MigMode.ENABLED)
    assert nvml.set_mig_mode(gpu, MigMode.DISABLED) == Code.SUCCESS
    assert nvml.mig_mode(gpu) == (MigMode.DISABLED, MigMode.DISABLED)


@on_all_boards
def test_instances_need_the_mode(hardware: Hardware, model: str) -> None:
    """With MIG off none can be made, wherever."""
    nvml = hardware(model=model)
    gpu = first(nvml)
    profile, places = smallest(nvml, gpu)
    assert (
        refusal(lambda: nvml.create_gpu_instance(gpu, profile.id, places[0])) == Code.NOT_SUPPORTED
    )


@on_all_boards
def test_every_profile_can_stand_at_each_of_its_places(hardware: Hardware, model: str) -> None:
    """What was made is listed with its profile and place, found by its id, and gone when it was destroyed."""
    nvml = hardware(model=model, mode="mig")
    gpu = first(nvml)
    for _, profile in profiles(nvml, gpu):
        for place in nvml.placements(gpu, profile.id):
            made = nvml.create_gpu_instance(gpu, profile.id, place)
            info = nvml.gpu_instance_info(made)
            assert info == GpuInstance(id=info.id, profile_id=profile.id, placement=place)
            (listed,) = nvml.gpu_instances(gpu, profile.id)
            assert nvml.gpu_instance_info(listed) == info
            assert nvml.gpu_instance_info(nvml.gpu_instance(gpu, info.id)) == info
            nvml.destroy_gpu_instance(made)
            assert nvml.gpu_instances(gpu, profile.id) == ()
            assert refusal(partial(nvml.gpu_instance, gpu, info.id)) == Code.NOT_FOUND


@on_all_boards
def test_a_gpu_takes_its_smallest_profile_at_all_places(hardware: Hardware, model: str) -> None:
    """Full of 1g instances, each with an id and a MIG device of its own, it refuses everything else."""
    nvml = hardware(model=model, mode="mig")
    gpu = first(nvml)
    profile, places = smallest(nvml, gpu)
    made = [nvml.create_gpu_instance(gpu, profile.id, place) for place in places]
    ids = {nvml.gpu_instance_info(one).id for one in made}
    assert len(ids) == len(places) == profile.limit
    for one in made:
        nvml.create_compute_instance(one, nvml.compute_profile(one, 0).id)
    uuids = nvml.mig_uuids(gpu)
    assert {instance for instance, _ in uuids} == ids
    assert len(set(uuids.values())) == len(ids)
    whole, whole_place = largest(nvml, gpu)
    for wanted, place in [(profile, places[0]), (whole, whole_place)]:
        make = partial(nvml.create_gpu_instance, gpu, wanted.id, place)
        assert refusal(make) == Code.INSUFFICIENT_RESOURCES


@on_all_boards
def test_a_place_that_no_profile_has_is_invalid(hardware: Hardware, model: str) -> None:
    """Beyond the axis, between two places, or too wide: told apart from a place that is taken."""
    nvml = hardware(model=model, mode="mig")
    gpu = first(nvml)
    for _, profile in profiles(nvml, gpu):
        size = nvml.placements(gpu, profile.id)[0].size
        wrong = [Placement(8, size), Placement(0, size + 1)]
        if size > 1:
            wrong.append(Placement(1, size))
        for place in wrong:
            make = partial(nvml.create_gpu_instance, gpu, profile.id, place)
            assert refusal(make) == Code.INVALID_ARGUMENT


@on_all_boards
def test_engines_run_out_before_slices_do(hardware: Hardware, model: str) -> None:
    """Of the profiles with the one set of media engines a GPU holds one, though it has room for another."""
    nvml = hardware(model=model, mode="mig")
    gpu = first(nvml)
    media = nvml.gpu_profile(gpu, 7)
    *_, place, other = nvml.placements(gpu, media.id)
    nvml.create_gpu_instance(gpu, media.id, place)
    assert (
        refusal(lambda: nvml.create_gpu_instance(gpu, media.id, other))
        == Code.INSUFFICIENT_RESOURCES
    )
    nvml.create_gpu_instance(gpu, smallest(nvml, gpu)[0].id, other)


def test_all_media_engines_leave_only_profiles_without(hardware: Hardware) -> None:
    """Beside a 1g+me.all an RTX PRO 6000 takes no plain 1g, which has an engine of each kind, but a 1g-me."""
    nvml = hardware(model="RTX-PRO-6000-96GB", mode="mig")
    gpu = first(nvml)
    plain, without, every = (nvml.gpu_profile(gpu, index).id for index in (0, 13, 15))
    nvml.create_gpu_instance(gpu, every, Placement(0, 1))
    make = partial(nvml.create_gpu_instance, gpu, plain, Placement(1, 1))
    assert refusal(make) == Code.INSUFFICIENT_RESOURCES
    nvml.create_gpu_instance(gpu, without, Placement(1, 1))


@on_all_boards
def test_what_is_in_use_stays(hardware: Hardware, model: str) -> None:
    """A GPU instance with a compute instance cannot go, nor the mode while there is any; then both can."""
    nvml = hardware(model=model, mode="mig")
    gpu = first(nvml)
    profile, place = largest(nvml, gpu)
    instance = nvml.create_gpu_instance(gpu, profile.id, place)
    compute = nvml.create_compute_instance(instance, 0)
    assert refusal(lambda: nvml.destroy_gpu_instance(instance)) == Code.IN_USE
    nvml.destroy_compute_instance(compute)
    assert refusal(lambda: nvml.set_mig_mode(gpu, MigMode.DISABLED)) == Code.IN_USE
    nvml.destroy_gpu_instance(instance)
    assert refusal(lambda: nvml.gpu_instance_info(instance)) == Code.NOT_FOUND
    nvml.set_mig_mode(gpu, MigMode.DISABLED)
    assert nvml.mig_mode(gpu)[1] == MigMode.DISABLED


@on_all_boards
def test_compute_instances_share_the_slices_of_their_gpu_instance(
    hardware: Hardware, model: str
) -> None:
    """Single slices fill it, and no more; each is listed, numbered, and a MIG device with a UUID."""
    nvml = hardware(model=model, mode="mig")
    gpu = first(nvml)
    profile, place = largest(nvml, gpu)
    instance = nvml.create_gpu_instance(gpu, profile.id, place)
    single = nvml.compute_profile(instance, 0)
    assert single.slices == 1
    made = [nvml.create_compute_instance(instance, single.id) for _ in range(profile.slices)]
    infos = [nvml.compute_instance_info(one) for one in made]
    assert {info.profile_id for info in infos} == {single.id}
    assert len({info.id for info in infos}) == profile.slices
    assert [nvml.compute_instance_info(one) for one in nvml.compute_instances(instance, 0)] == infos
    parent = nvml.gpu_instance_info(instance).id
    assert nvml.mig_uuids(gpu).keys() == {(parent, info.id) for info in infos}
    assert (
        refusal(lambda: nvml.create_compute_instance(instance, single.id))
        == Code.INSUFFICIENT_RESOURCES
    )


@on_all_boards
def test_a_compute_instance_stands_where_it_was_asked_for(hardware: Hardware, model: str) -> None:
    """Each single slice, the last one first; a slice has room for one, and one beyond the end is no place."""
    nvml = hardware(model=model, mode="mig")
    gpu = first(nvml)
    profile, place = largest(nvml, gpu)
    instance = nvml.create_gpu_instance(gpu, profile.id, place)
    single = nvml.compute_profile(instance, 0).id
    for start in reversed(range(profile.slices)):
        made = nvml.create_compute_instance(instance, single, Placement(start, 1))
        assert nvml.compute_instance_info(made).start == start
    for start, code in ((0, Code.INSUFFICIENT_RESOURCES), (profile.slices, Code.INVALID_ARGUMENT)):
        make = partial(nvml.create_compute_instance, instance, single, Placement(start, 1))
        assert refusal(make) == code


@on_all_boards
def test_a_compute_profile_fills_its_gpu_instance(hardware: Hardware, model: str) -> None:
    """For each GPU profile there is a compute profile of as many slices; a larger one is not supported."""
    nvml = hardware(model=model, mode="mig")
    gpu = first(nvml)
    for _, profile in profiles(nvml, gpu):
        instance = nvml.create_gpu_instance(gpu, profile.id, nvml.placements(gpu, profile.id)[0])
        offered = list(compute_profiles(nvml, instance))
        assert max(one.slices for one in offered) == profile.slices
        full = next(one for one in offered if one.slices == profile.slices)
        assert full.multiprocessors == profile.multiprocessors
        compute = nvml.create_compute_instance(instance, full.id)
        assert nvml.compute_instance_info(compute) == ComputeInstance(
            id=0, profile_id=full.id, start=0
        )
        nvml.destroy_compute_instance(compute)
        nvml.destroy_gpu_instance(instance)


@on_all_boards
def test_numbers_are_used_again_and_uuids_are_not(hardware: Hardware, model: str) -> None:
    """A MIG device made anew has the former one's ids, and is another device."""
    nvml = hardware(model=model, mode="mig")
    gpu = first(nvml)
    profile, (place, *_) = smallest(nvml, gpu)
    seen = []
    for _ in range(2):
        instance = nvml.create_gpu_instance(gpu, profile.id, place)
        compute = nvml.create_compute_instance(instance, 0)
        seen.append(nvml.mig_uuids(gpu))
        nvml.destroy_compute_instance(compute)
        nvml.destroy_gpu_instance(instance)
    assert seen[0].keys() == seen[1].keys()
    assert set(seen[0].values()).isdisjoint(seen[1].values())


@on_all_boards
def test_mig_devices_keep_their_names_when_one_goes(hardware: Hardware, model: str) -> None:
    """The others are found as before, though the numbers by which NVML lists them have a gap now."""
    nvml = hardware(model=model, mode="mig")
    gpu = first(nvml)
    profile, places = smallest(nvml, gpu)
    instances = [nvml.create_gpu_instance(gpu, profile.id, place) for place in places]
    computes = [nvml.create_compute_instance(one, 0) for one in instances]
    before = nvml.mig_uuids(gpu)
    nvml.destroy_compute_instance(computes[0])
    gone = nvml.gpu_instance_info(instances[0]).id, 0
    after = nvml.mig_uuids(gpu)
    assert before.keys() - after.keys() == {gone}
    assert after.items() <= before.items()


def test_the_gpus_of_a_machine_are_apart(hardware: Hardware) -> None:
    """What is done to one changes nothing on another."""
    nvml = hardware(count=2, mode="mig")
    one, other = (nvml.gpu_by_address(at) for at in nvml.pci_addresses())
    profile, place = largest(nvml, one)
    nvml.create_compute_instance(nvml.create_gpu_instance(one, profile.id, place), 4)
    assert nvml.mig_uuids(one)
    assert nvml.mig_uuids(other) == {}
    assert nvml.gpu_instances(other, profile.id) == ()


@pytest.mark.parametrize("model", ["A100-SXM4-40GB", "H100-SXM5-80GB"])
@pytest.mark.parametrize(
    ("starts", "fits"), [((4, 0, 2, 3), True), ((0, 4, 6, 7), False), ((0, 4, 6, 5), False)]
)
def test_where_the_3g_stands_decides_a_layout(
    hardware: Hardware, model: str, starts: tuple[int, ...], *, fits: bool
) -> None:
    """3g+2g+2x1g exists with the 3g at 4; with it at 0 one memory slice is left, and no 1g reaches that."""
    nvml = hardware(model=model, mode="mig")
    gpu = first(nvml)
    one, two, three = (nvml.gpu_profile(gpu, index) for index in range(3))
    sizes = (4, 2, 1, 1)
    *before, last = zip((three, two, one, one), map(Placement, starts, sizes), strict=True)
    for profile, place in before:
        nvml.create_gpu_instance(gpu, profile.id, place)
    make = partial(nvml.create_gpu_instance, gpu, last[0].id, last[1])
    if fits:
        make()
    else:
        assert refusal(make) in {Code.INSUFFICIENT_RESOURCES, Code.INVALID_ARGUMENT}
