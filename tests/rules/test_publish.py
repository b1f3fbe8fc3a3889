"""What a node publishes: forms of GPUs, their devices and counters, pools, and the writes that lead there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dra_driver.config.machine import Machine, load_machine
from dra_driver.kube.codec import slice_from_json, slice_to_json
from dra_driver.model.device import Gpu, Passthrough, Placement, Vendor
from dra_driver.model.inventory import Inventory
from dra_driver.model.names import gpu_name, passthrough_name
from dra_driver.model.slices import Taint, Version
from dra_driver.rules.devices import render_counters, render_device
from dra_driver.rules.forms import Form, Sharing, all_forms
from dra_driver.rules.partitions import Placed, legal
from dra_driver.rules.pool_diff import at_generation, diff_pool
from dra_driver.rules.pool_layout import slice_name
from dra_driver.rules.publish import PublishMode, desired_pool, published_forms
from dra_driver.vendors.amd.backend import AmdBackend
from dra_driver.vendors.amd.sdk import Sysfs
from dra_driver.vendors.amd.simulated import build_tree
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml

MACHINES = [
    "4xa30",
    "8xa100-40",
    "8xa100-80",
    "8xb200",
    "8xh100-80",
    "8xh100-94",
    "8xh200",
    "8xmi300x",
    "8xrtx-pro-6000",
]
FULL, PLAIN = PublishMode.FULL, PublishMode.PLAIN
NOTHING_MADE: frozenset[tuple[str, str, Placement]] = frozenset()

Look = Callable[[str | Machine], Inventory]


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Look:
    """The inventory of a simulated machine."""

    def seen(source: str | Machine) -> Inventory:
        machine = load_machine(source) if isinstance(source, str) else source
        folder: Path = tmp_path_factory.mktemp("hardware")
        if machine.gpus[0].vendor is Vendor.AMD:
            return discover(AmdBackend(Sysfs(build_tree(machine, node="n", folder=folder))))
        return discover(NvidiaBackend(SimulatedNvml(machine, node="n", state_dir=folder)))

    return seen


def machine_of(**spec: Any) -> Machine:
    """A machine with one kind of NVIDIA GPU."""
    header = {"apiVersion": "gpu.dra-driver.dev/v1alpha1", "kind": "Machine", "name": "test"}
    return Machine.model_validate(header | {"gpus": [{"vendor": "nvidia"} | spec]})


def names(gpu: Gpu, mode: PublishMode = FULL) -> list[str]:
    """What is published of the GPU, without its own name."""
    return [
        form.name.removeprefix(f"gpu-{gpu.pci_address.replace(':', '-').replace('.', '-')}")
        for form in published_forms(gpu, NOTHING_MADE, mode)
    ]


@pytest.mark.parametrize("machine", MACHINES)
def test_every_device_has_our_attributes_and_stays_in_the_limits(look: Look, machine: str) -> None:
    """On every form of every machine: the whole set, 32 entries at most, strings of 64 characters at most, unique names."""
    ours = {
        "vendor",
        "type",
        "productName",
        "architecture",
        "uuid",
        "index",
        "parent",
        "profile",
        "sharing",
    }
    ours |= {"isolation", "computeCapability", "driverVersion"}
    seen: Counter[str] = Counter()
    for gpu in look(machine).gpus:
        for form in all_forms(gpu):
            device = render_device(form, with_counters=True)
            seen[device.name] += 1
            assert ours <= device.attributes.keys()
            assert {"memory", "computeUnits"} <= device.capacity.keys()
            assert len(device.attributes) + len(device.capacity) <= 32
            assert all(
                len(value) <= 64 for value in device.attributes.values() if isinstance(value, str)
            )
    assert max(seen.values()) == 1


@pytest.mark.parametrize("mode", [FULL, PLAIN])
@pytest.mark.parametrize("machine", MACHINES)
def test_slices_are_what_the_api_server_accepts(
    look: Look, machine: str, mode: PublishMode
) -> None:
    """Limits, counters in slices of their own, names in order; every slice passes the real schema."""
    pool = desired_pool("n", look(machine), NOTHING_MADE, mode, 64)
    assert [item.name for item in pool.slices] == sorted(item.name for item in pool.slices)
    for item in pool.slices:
        assert len(item.devices) <= 64
        assert len(item.shared_counters) <= 8
        assert not (item.devices and item.shared_counters)
        assert all(len(counters.counters) <= 32 for counters in item.shared_counters)
        assert item.pool.slice_count == len(pool.slices)
        kubernetes_validate.validate(slice_to_json(item), "1.36", strict=True)


def test_devices_are_listed_so_that_first_fit_packs(look: Look) -> None:
    """Smallest first, then from the end of the GPU backwards, the whole GPU behind its partitions, the monitor last."""
    gpu = look("8xh100-80").gpus[0]
    suffixes = names(gpu)
    assert suffixes[:3] == ["-mig-1g-10gb-6", "-mig-1g-10gb-5", "-mig-1g-10gb-4"]
    assert suffixes[-5:] == ["-mig-3g-40gb-0", "-mig-4g-40gb-0", "-mig-7g-80gb-0", "", "-monitor"]
    assert len(suffixes) == 27


def test_a_gpu_that_cannot_switch_offers_the_forms_of_its_mode(look: Look) -> None:
    """An A100 is whole or cut, as it was started; monitors do not mind."""
    cut, whole = look("8xa100-40").gpus[0], look("8xa100-80").gpus[0]
    assert "" not in names(cut)
    assert names(whole) == ["", "-monitor"]


def test_without_counters_only_what_exists_is_offered(look: Look) -> None:
    """A whole GPU that nobody has cut; the instances of one that somebody has; no monitor, whose taint may be dropped."""
    assert names(look("8xh100-80").gpus[0], PLAIN) == [""]
    assert names(look("8xa100-40").gpus[0], PLAIN) == []
    cut = machine_of(
        model="A100-SXM4-40GB", mode="mig", instances=[{"profile": "3g.20gb", "start": 4}]
    )
    assert names(look(cut).gpus[0], PLAIN) == ["-mig-3g-20gb-4"]


def test_somebody_elses_instance_is_a_device_and_keeps_its_place(look: Look) -> None:
    """It is offered as it is; whatever needs its slices, or the media engine that it took, is not."""
    spec = {
        "model": "H100-SXM5-80GB",
        "mode": "mig",
        "instances": [{"profile": "1g.10gb+me", "start": 6}],
    }
    gpu = look(machine_of(**spec)).gpus[0]
    offered = names(gpu)
    assert "-mig-1g-10gb-me-6" in offered
    assert not {"", "-mig-1g-10gb-6", "-mig-3g-40gb-4", "-mig-7g-80gb-0"} & set(offered)
    assert "-mig-1g-10gb-me-0" not in offered
    assert {"-mig-1g-10gb-0", "-mig-4g-40gb-0", "-monitor"} <= set(offered)
    made = frozenset({(gpu.pci_address, "1g.10gb+me", Placement(6, 1))})
    assert len(list(published_forms(gpu, made, FULL))) == 27


@given(data=st.data())
@settings(max_examples=150)
def test_counters_allow_exactly_the_legal_layouts(data: st.DataObject, h100: Gpu) -> None:
    """A set of partitions fits into the counters if and only if the hardware can hold it; the whole GPU fits alone."""
    assert h100.partitioning is not None
    counters = render_counters(h100)
    assert counters is not None
    forms = data.draw(st.sets(st.sampled_from(range(25)), min_size=1, max_size=5).map(sorted))
    chosen = [all_forms(h100)[index] for index in forms]
    layout = {Placed(f.profile.name, f.placement) for f in chosen if f.profile and f.placement}
    assert _fit(chosen, dict(counters.counters)) == legal(h100.partitioning, layout)
    whole = next(
        form
        for form in all_forms(h100)
        if form.profile is None and form.sharing is Sharing.EXCLUSIVE
    )
    assert _fit([whole], dict(counters.counters))
    assert not _fit([whole, chosen[0]], dict(counters.counters))


def _fit(forms: list[Form], left: dict[str, Any]) -> bool:
    for form in forms:
        for part in render_device(form, with_counters=True).consumes:
            for name, amount in part.counters.items():
                left[name] = left[name] - amount
    return all(amount.nanos >= 0 for amount in left.values())


@pytest.fixture(scope="module")
def h100(look: Look) -> Gpu:
    """One GPU."""
    return look("8xh100-80").gpus[0]


def test_a_monitor_takes_nothing_and_is_tainted(h100: Gpu) -> None:
    """So that no ordinary claim gets it, and no claim is kept from the GPU by it."""
    device = render_device(all_forms(h100)[-1], with_counters=True)
    assert (device.consumes, device.taints) == ((), (Taint(key="gpu.dra-driver.dev/monitor"),))


def test_odd_values_never_cost_the_slice(h100: Gpu) -> None:
    """An unreadable version becomes neutral, a bad extra is dropped, a long name is cut."""
    odd = replace(
        h100,
        driver_version="N/A",
        compute_capability=None,
        product_name="x" * 100,
        extras={"bad name": "1", "long": "y" * 65, "version": Version("not-semver"), "fine": True},
    )
    attributes = render_device(all_forms(odd)[0], with_counters=True).attributes
    assert attributes["driverVersion"] == attributes["computeCapability"] == Version("0.0.0")
    assert attributes["productName"] == "x" * 64
    assert attributes["fine"] is True
    assert not {"bad name", "long", "version"} & attributes.keys()


def test_a_budget_leaves_out_whole_profiles(look: Look) -> None:
    """The most numerous go first, they are named, and the whole GPU always stays."""
    pool = desired_pool("n", look("8xh100-80"), NOTHING_MADE, FULL, 10)
    shown = [device.name for item in pool.slices for device in item.devices]
    assert "gpu-0000-1b-00-0" in shown
    assert sum(name.startswith("gpu-0000-1b-00-0") for name in shown) <= 10
    assert "0000:1b:00.0 1g.10gb" in pool.left_out


def test_a_node_without_usable_gpus_has_a_complete_empty_pool() -> None:
    """So that requests for all devices see none instead of an incomplete pool."""
    pool = desired_pool("n", Inventory(vendor=Vendor.AMD, gpus=()), NOTHING_MADE, FULL, 64)
    assert [(item.pool.slice_count, item.devices) for item in pool.slices] == [(1, ())]


def test_nothing_is_written_when_nothing_differs(look: Look) -> None:
    """Also after a trip through JSON, where the server has added times to taints."""
    pool = desired_pool("n", look("8xh100-80"), NOTHING_MADE, FULL, 64)
    first = diff_pool(pool, [])
    assert len(first.writes) == 9
    stored = [slice_to_json(item) for item in first.writes]
    for item in stored:
        for device in item["spec"].get("devices", []):
            for taint in device.get("taints", []):
                taint["timeAdded"] = "2026-11-21T00:00:00Z"
    assert not diff_pool(pool, [slice_from_json(item) for item in stored])


def test_counters_are_written_last(look: Look) -> None:
    """The pool becomes complete, and so usable, only when every device slice was seen to be stored whole."""
    writes = diff_pool(desired_pool("n", look("8xh100-80"), NOTHING_MADE, FULL, 64), []).writes
    assert [bool(item.shared_counters) for item in writes] == [False] * 8 + [True]


def test_one_changed_slice_keeps_the_generation_and_more_raise_it(look: Look) -> None:
    """One change rewrites its slice alone; two changes, a missing or an obsolete slice renew all."""
    pool = desired_pool("n", look("8xh100-80"), NOTHING_MADE, FULL, 64)
    stored = [at_generation(item, 4) for item in pool.slices]
    shorter = [replace(item, devices=item.devices[1:]) for item in stored]
    one = diff_pool(pool, [shorter[1], *stored[2:], stored[0]])
    assert [(item.name, item.pool.generation) for item in one.writes] == [(stored[1].name, 4)]
    two = diff_pool(pool, [*shorter[1:3], *stored[3:], stored[0]])
    assert [item.pool.generation for item in two.writes] == [5] * 9
    missing = diff_pool(pool, stored[1:])
    assert [item.pool.generation for item in missing.writes] == [5] * 9
    extra = replace(stored[0], name="zzz")
    obsolete = diff_pool(pool, [*stored, extra])
    assert obsolete.deletes == ("zzz",)
    assert [item.pool.generation for item in obsolete.writes] == [5] * 9


def test_taints_never_raise_the_generation(look: Look) -> None:
    """However many slices they change: each is rewritten alone, and the pool stays complete meanwhile."""
    pool = desired_pool("n", look("8xh100-80"), NOTHING_MADE, FULL, 64)
    stored = [at_generation(item, 4) for item in pool.slices]
    tainted = [
        replace(item, devices=tuple(replace(d, taints=(Taint(key="k"),)) for d in item.devices))
        for item in stored
    ]
    writes = diff_pool(pool, tainted).writes
    assert [(item.name, item.pool.generation) for item in writes] == [
        (item.name, 4) for item in stored if item.devices
    ]


def test_slice_names_are_unique_and_short_enough() -> None:
    """Over vendors, indexes and nodes, also for the longest node name."""
    nodes = ["n", "node-a", "x" * 253, "x" * 252 + "y"]
    made = [
        slice_name(index, f"{node}/{vendor}")
        for index in (0, 8)
        for node in nodes
        for vendor in Vendor
    ]
    assert len(set(made)) == len(made)
    assert max(map(len, made)) <= 253


def test_no_two_whole_gpus_or_partitions_of_different_gpus_exclude_each_other(look: Look) -> None:
    """Counters belong to one GPU: devices of two GPUs never share a counter set."""
    gpus = look("8xh100-80").gpus
    sets = [
        {
            part.counter_set
            for form in all_forms(gpu)
            for part in render_device(form, with_counters=True).consumes
        }
        for gpu in gpus
    ]
    assert all(len(one) == 1 for one in sets)
    assert all(one.isdisjoint(other) for one, other in combinations(sets, 2))


@pytest.mark.parametrize("machine", ["8xh100-80", "8xmi300x"])
def test_a_gpu_for_virtual_machines_excludes_all_its_other_forms(look: Look, machine: str) -> None:
    """It takes what the whole GPU takes, all there is, even of a GPU that cannot be cut; its type is its own."""
    gpu = replace(look(machine).gpus[0], passthrough=Passthrough.POSSIBLE)
    totals = render_counters(gpu)
    assert totals is not None
    forms = {form.name: form for form in published_forms(gpu, NOTHING_MADE, FULL)}
    whole = render_device(forms[gpu_name(gpu.pci_address)], with_counters=True)
    machines = render_device(forms[passthrough_name(gpu.pci_address)], with_counters=True)
    assert machines.consumes == whole.consumes
    assert machines.consumes[0].counters == totals.counters
    assert machines.capacity == whole.capacity
    differing = {
        name: value
        for name, value in machines.attributes.items()
        if whole.attributes[name] != value
    }
    assert differing == {"type": "passthrough", "driverVersion": Version("0.0.0")}


@pytest.mark.parametrize("machine", ["8xh100-80", "8xmi300x"])
def test_handing_a_gpu_over_changes_nothing_that_is_published(look: Look, machine: str) -> None:
    """Else each claim would rewrite slices. Without counters only what the GPU is now is published."""
    inventory = look(machine)
    pools = {}
    for state in Passthrough:
        gpus = tuple(replace(gpu, passthrough=state) for gpu in inventory.gpus)
        pools[state] = desired_pool("n", replace(inventory, gpus=gpus), NOTHING_MADE, FULL, 64)
    possible, bound = (replace(inventory.gpus[0], passthrough=state) for state in Passthrough)
    assert pools[Passthrough.POSSIBLE] == pools[Passthrough.BOUND]
    for item in pools[Passthrough.BOUND].slices:
        kubernetes_validate.validate(slice_to_json(item), "1.36", strict=True)
    assert names(possible)[-3:] == ["", "-vfio", "-monitor"]
    assert names(possible, PLAIN) == [""]
    assert names(bound, PLAIN) == ["-vfio"]
    assert "-vfio" not in names(inventory.gpus[0])
