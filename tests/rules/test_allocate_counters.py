"""Counters that the devices of a pool share (k8s-dra.md 5.7, KEP-4815), up to a node full of partitions."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from dra_driver.model.slices import Device

MIG = {
    "1g": (1, range(7)),
    "1g+me": (1, range(7)),
    "1g2": (2, range(0, 8, 2)),
    "2g": (2, range(0, 6, 2)),
    "3g": (4, (0, 4)),
    "4g": (4, (0,)),
    "7g": (8, (0,)),
}
"""Size in memory slices, and starts, of an A100-like GPU's profiles."""


def publish_gpus(world: Any, number: int) -> None:
    """GPUs with eight memory slices each: every partition, largest start first, a monitor, a shared and a whole GPU."""
    sets = {f"gpu-{i}": {f"m{slot}": 1 for slot in range(8)} for i in range(number)}
    world.publish_counters(sets, of=number + 1)
    for gpu in sets:
        partitions = [
            partition(world, gpu, f"{gpu}-{profile}-{start}", start, size, profile)
            for profile, (size, starts) in MIG.items()
            for start in reversed(starts)
        ]
        shared = partition(world, gpu, f"{gpu}-shared", 0, 8, "shared")
        world.publish(
            *partitions,
            replace(shared, allow_multiple_allocations=True),
            partition(world, gpu, gpu, 0, 8, "whole"),
            name=gpu,
            of=number + 1,
        )


def partition(world: Any, gpu: str, name: str, start: int, size: int, profile: str) -> Device:
    slots = {f"m{slot}": 1 for slot in range(start, min(start + size, 8))}
    device: Device = world.partition(name, gpu, **slots)
    return replace(device, attributes={"profile": profile})


def ask(world: Any, *profiles: str) -> None:
    """One claim per profile."""
    for profile in profiles:
        world.ask(world.request(selectors=(f"profile={profile}",)))


def test_counters_are_what_is_declared_less_what_is_allocated(world: Any) -> None:
    """A committed device leaves the rest of the set to others."""
    world.publish_counters({"set": {"n": 4}}, of=2)
    world.publish(
        world.partition("a", n=3), world.partition("b", n=2), world.partition("c", n=1), of=2
    )
    world.hold("a")
    world.ask()
    assert world.devices() == ["c"]


def test_an_overdrawn_counter_blocks_all_consumers_of_its_pool(world: Any) -> None:
    """As upstream: where published counters shrink below what is allocated, the pool's partitions wait, not its other devices."""
    world.publish_counters({"small": {"n": 1}, "big": {"n": 9}}, of=2)
    world.publish(
        world.partition("taken", "small", n=2), world.partition("free", "big", n=1), "plain", of=2
    )
    world.hold("taken")
    world.ask()
    assert world.devices() == ["plain"]


def test_counters_of_the_attempt_count_too(world: Any) -> None:
    """The pod's own earlier requests are charged."""
    world.publish_counters({"set": {"n": 4}}, of=2)
    world.publish(
        world.partition("a", n=3), world.partition("b", n=2), world.partition("c", n=1), of=2
    )
    world.ask(world.request("r"), world.request("s"))
    assert world.devices() == ["a", "c"]


def test_every_counter_must_suffice(world: Any) -> None:
    """Plenty of one does not make up for another."""
    world.publish_counters({"set": {"memory": 8, "copy": 1}}, of=2)
    world.publish(
        world.partition("a", memory=1, copy=1), world.partition("b", memory=1, copy=1), of=2
    )
    world.hold("a")
    world.ask()
    assert "1 out of counters (set)" in world.refusal()


def test_counters_belong_to_their_pool(world: Any) -> None:
    """Sets of the same name in two pools, and in pools of the same name of two drivers, are different sets."""
    for driver, pool in (("d", "p"), ("d", "q"), ("e", "p")):
        world.publish_counters({"set": {"n": 1}}, driver=driver, pool=pool, of=2)
        world.publish(world.partition("a", n=1), driver=driver, pool=pool, of=2)
    world.ask(world.request(count=3))
    assert [(r.driver, r.pool) for r in world.results()] == [("d", "p"), ("d", "q"), ("e", "p")]


def test_a_withdrawn_device_frees_its_counters(world: Any) -> None:
    """As upstream (kubernetes#140806): what is allocated and no longer published is not charged."""
    world.publish_counters({"set": {"n": 1}}, of=2)
    world.publish(world.partition("a", n=1), of=2)
    world.hold("withdrawn")
    world.ask()
    assert world.devices() == ["a"]


def test_rejected_candidates_give_their_counters_back(world: Any) -> None:
    """Backtracking leaves no trace (upstream once leaked: kubernetes#140436)."""
    world.publish_counters({"set": {"n": 2}}, of=2)
    big = replace(world.partition("big", n=2), attributes={"x": 1})
    small = replace(world.partition("small", n=1), attributes={"x": 1})
    picky = replace(world.partition("picky", n=1), attributes={"x": 2})
    world.publish(big, small, picky, of=2)
    world.ask(world.request("r"), world.request("s", selectors=("x=2",)))
    assert world.devices() == ["small", "picky"]


def test_forms_of_a_gpu_exclude_each_other(world: Any) -> None:
    """Whole, partitioned or shared, as demand decides; checked on a real scheduler (real-stack.md 1)."""
    publish_gpus(world, 1)
    ask(world, "3g", "1g", "1g")
    assert world.devices() == ["gpu-0-3g-4", "gpu-0-1g-3", "gpu-0-1g-2"]
    for profile in ("whole", "shared", "4g", "3g"):
        ask(world, profile)
        assert "not all together" in world.refusal()
        world.claims.pop()


def test_a_shared_device_is_charged_once(world: Any) -> None:
    """However many shares of it are out, in this attempt or committed."""
    publish_gpus(world, 1)
    ask(world, "shared", "shared", "shared")
    assert world.devices() == ["gpu-0-shared"] * 3
    world.hold("gpu-0-shared", share_id="s1")
    world.hold("gpu-0-shared", share_id="s2")
    assert world.devices() == ["gpu-0-shared"] * 3
    world.claims.clear()
    ask(world, "whole")
    assert "1 out of counters (gpu-0)" in world.refusal()


def test_shares_leave_the_rest_of_the_set_to_others(world: Any) -> None:
    """Two shares of half a GPU, and the other half beside them."""
    world.publish_counters({"set": {"n": 2}}, of=2)
    half = replace(world.partition("shared", n=1), allow_multiple_allocations=True)
    world.publish(half, world.partition("other", n=1), of=2)
    world.ask(world.request("r"), world.request("s"), world.request("both", count=2))
    assert world.devices() == ["shared", "shared", "shared", "other"]


def test_a_shared_device_needs_its_counters_free(world: Any) -> None:
    """The first share is like any other form."""
    publish_gpus(world, 1)
    world.hold("gpu-0-1g-3")
    ask(world, "shared")
    assert "1 out of counters (gpu-0)" in world.refusal()


def test_static_order_packs(world: Any) -> None:
    """Largest start first keeps GPU 0 for partitions and GPU 1 whole."""
    publish_gpus(world, 2)
    ask(world, *["1g"] * 7, "whole")
    assert world.devices()[-1] == "gpu-1"


@pytest.mark.parametrize(
    "profiles", [["1g"] * 20, ["3g"] * 10 + ["1g"] * 10, ["whole"] * 4 + ["2g"] * 12]
)
def test_twenty_claims_on_eight_gpus_take_well_under_a_second(
    world: Any, profiles: list[str]
) -> None:
    """A full node: 8 GPUs with 27 devices each, one pod with twenty claims or so."""
    publish_gpus(world, 8)
    ask(world, *profiles)
    began = time.process_time()
    assert len(world.devices()) == len(profiles)
    assert time.process_time() - began < 1


def test_one_partition_too_many_is_refused_in_bounded_time(world: Any) -> None:
    """Seventeen halves of eight GPUs: refused, if only because the search is too long."""
    publish_gpus(world, 8)
    ask(world, *["3g"] * 17)
    began = time.process_time()
    assert world.refusal()
    assert time.process_time() - began < 20
