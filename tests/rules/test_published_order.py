"""The order in which partitions are published packs: first-fit, which is all that the scheduler does, reaches the useful layouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from dra_driver.config.machine import Machine
from dra_driver.model.claim import (
    Claim,
    ClaimRef,
    ClaimRequest,
    DeviceClass,
    DeviceRequest,
)
from dra_driver.model.slices import Device, ResourceSlice
from dra_driver.rules.allocate import Allocated, Cluster, NodeInfo, Refusal, allocate
from dra_driver.rules.publish import PublishMode, desired_pool
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.profiles import BOARDS
from dra_driver.vendors.nvidia.simulated import SimulatedNvml

SEVEN_SLICES = sorted(
    model for model, board in BOARDS.items() if any(cut.profile.slices == 7 for cut in board.cuts)
)
NODE = NodeInfo(name="n", labels={})


class ProfileMatcher:
    """A selector is the profile that it wants, `` for none."""

    def matches(self, expressions: Sequence[str], device: Device, driver: str) -> bool:
        return all(device.attributes.get("profile") == wanted for wanted in expressions)


def published(folder: Path, model: str, *splits: str) -> tuple[ResourceSlice, ...]:
    """The slices of a node with one such GPU, its MIG mode on; with `splits`, parts of partitions are offered."""
    gpus = [{"vendor": "nvidia", "model": model, "mode": "mig"}]
    header = {"apiVersion": "gpu.dra-driver.dev/v1alpha1", "kind": "Machine", "name": "test"}
    machine = Machine.model_validate(header | {"gpus": gpus})
    backend = NvidiaBackend(SimulatedNvml(machine, node="n", state_dir=folder), splits=splits)
    return desired_pool("n", discover(backend), frozenset(), PublishMode.FULL, 64).slices


def profiles(slices: Sequence[ResourceSlice]) -> dict[str, str]:
    """The plain profile of each size on this board, by its slices: the one with the least memory."""
    names = {str(d.attributes["profile"]) for item in slices for d in item.devices}
    plain = sorted(
        (name for name in names if name and "+" not in name and "-" not in name),
        key=lambda name: int(name.partition(".")[2].removesuffix("gb")),
    )
    return {
        size: next(name for name in plain if name.startswith(f"{size}."))
        for size in ("1g", "2g", "3g")
    }


def claim(number: int, profile: str) -> Claim:
    request = DeviceRequest(name="r", device_class="partition", selectors=(profile,))
    return Claim(
        ref=ClaimRef(namespace="ns", name=f"c{number}", uid=f"uid-{number}"),
        requests=(ClaimRequest(name="r", alternatives=(request,)),),
    )


def served(
    slices: Sequence[ResourceSlice], claims: Sequence[Claim], held: Sequence[Claim] = ()
) -> list[Claim]:
    """The claims of one pod with what the scheduler gives them beside the held ones; none where it refuses."""
    classes = {"partition": DeviceClass(name="partition")}
    cluster = Cluster(classes=classes, slices=slices, allocated=Allocated.of(held))
    answer = allocate(
        claims, NODE, cluster, matcher=ProfileMatcher(), new_share_id=lambda: "no-share"
    )
    if isinstance(answer, Refusal):
        return []
    return [replace(one, allocation=got) for one, got in zip(claims, answer, strict=True)]


@pytest.mark.parametrize("model", SEVEN_SLICES)
def test_three_two_one_one_is_reached(tmp_path: Path, model: str) -> None:
    """3g, 2g and two 1g exist only with the 3g at 4: first-fit puts it there, and the others beside it in every order.

    A pod that asks for all of them at once gets them in every order; only a small one that is alone at first may stand in the way.
    """
    slices = published(tmp_path, model)
    names = profiles(slices)
    others = [names["2g"], names["1g"], names["1g"]]
    for order in set(permutations(others)):
        held: list[Claim] = []
        for number, profile in enumerate([names["3g"], *order]):
            held += served(slices, [claim(number, profile)], held)
        assert len(held) == 4, order
    for order in set(permutations([names["3g"], *others])):
        together = [claim(number, profile) for number, profile in enumerate(order)]
        assert len(served(slices, together)) == 4, order


def test_parts_fill_one_partition_before_they_begin_another(tmp_path: Path) -> None:
    """Six parts of 3g on two partitions and no seventh; beside the first three a 4g finds all that it needs, and no whole 3g at their place."""
    slices = published(tmp_path, "H100-SXM5-80GB", "1c.3g.40gb")
    held: list[Claim] = []
    for number in range(7):
        held += served(slices, [claim(number, "1c.3g.40gb")], held)
    devices = [one.allocation.results[0].device for one in held if one.allocation]
    stem = "gpu-0000-1b-00-0-mig-1c-3g-40gb"
    assert devices == [f"{stem}-{start}-{part}" for start in (4, 0) for part in range(3)]
    assert served(slices, [claim(7, "4g.40gb")], held[:3])
    assert not served(slices, [claim(7, "4g.40gb")], held[3:])
    assert served(slices, [claim(7, "3g.40gb"), claim(8, "3g.40gb")]) != []
    assert served(slices, [claim(7, "3g.40gb"), claim(8, "3g.40gb")], held[:1]) == []
    assert served(slices, [claim(7, "7g.80gb")], held[:1]) == []
