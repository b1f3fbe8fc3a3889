"""Parts of partitions: on every board counters allow exactly what the hardware does, or the parts are not offered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import pytest
from structlog.testing import capture_logs

from dra_driver.model.device import Partitioning, Placement
from dra_driver.rules.forms import Form, all_forms
from dra_driver.rules.partitions import Placed, legal
from dra_driver.rules.splitting import is_exact
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.profiles import BOARDS
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.vendors.nvidia.splits import possible_splits
from tests.property.taking import counters_suffice

Simulate = Callable[..., SimulatedNvml]
MODELS = sorted(model for model, board in BOARDS.items() if board.cuts)


def cuts(nvml: SimulatedNvml) -> Partitioning:
    partitioning = discover(NvidiaBackend(nvml)).gpus[0].partitioning
    assert partitioning is not None
    return partitioning


def forms_of(nvml: SimulatedNvml, split: str) -> list[Form]:
    (gpu,) = discover(NvidiaBackend(nvml, splits=[split])).gpus
    return [form for form in all_forms(gpu) if form.profile is not None]


def placed(form: Form) -> Placed:
    assert form.profile is not None
    assert form.placement is not None
    return Placed(form.profile.name, form.placement)


@pytest.mark.parametrize("model", MODELS)
def test_counters_allow_what_the_hardware_allows_and_nothing_else(
    simulate: Simulate, model: str
) -> None:
    """A part beside any two other partitions and parts: by the published counters as by the placement rules."""
    nvml = simulate(model=model)
    for split in possible_splits(cuts(nvml)):
        if not is_exact(cuts(nvml), split):
            continue
        forms = forms_of(nvml, split.name)
        partitioning = forms[0].gpu.partitioning
        assert partitioning is not None
        assert sum(form.profile == partitioning.split for form in forms) == len(split.placements)
        first, *others = sorted(forms, key=lambda form: form.profile != partitioning.split)
        for second, third in combinations(others, 2):
            together = [first, second, third]
            assert counters_suffice(together) == legal(partitioning, list(map(placed, together)))


def test_parts_of_what_only_one_partition_can_have_are_not_offered(simulate: Simulate) -> None:
    """Of a GPU's one set of media engines half would be counted while all is taken."""
    refused = {
        split.name
        for model in MODELS
        for split in possible_splits(cuts(simulate(model=model)))
        if not is_exact(cuts(simulate(model=model)), split)
    }
    assert refused == {"1c.2g.12gb+me", "1c.2g.48gb+me.all"}


def test_parts_whose_partitions_overlap_are_not_offered(simulate: Simulate) -> None:
    """No board has them: then parts of two partitions would be counted as beside each other."""
    partitioning = cuts(simulate())
    split = next(one for one in possible_splits(partitioning) if one.name == "1c.3g.40gb")
    shifted = tuple(Placement(start, 4, part) for start in (2, 4) for part in range(3))
    assert is_exact(partitioning, split)
    assert not is_exact(partitioning, replace(split, placements=shifted))


def test_a_board_without_the_named_profiles_says_once_which_it_has(simulate: Simulate) -> None:
    """However often it is looked at; of two names that it has the first counts, and of another board's it offers none."""
    backend = NvidiaBackend(simulate(), splits=["1c.3g.20gb"])
    with capture_logs() as said:
        for _ in range(3):
            assert offered(backend) is None
    (only,) = said
    assert "1c.3g.40gb" in only["possible"].split(",")
    both = ["1c.3g.20gb", "1c.4g.40gb", "1c.3g.40gb"]
    assert offered(NvidiaBackend(simulate(), splits=both)) == "1c.4g.40gb"


def offered(backend: NvidiaBackend) -> str | None:
    """The profile of parts that the GPU offers."""
    partitioning = discover(backend).gpus[0].partitioning
    assert partitioning is not None
    return partitioning.split.name if partitioning.split else None
