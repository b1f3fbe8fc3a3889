"""Hysteresis, escalation and clearing, in times of our own; and who is concerned by what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dra_driver.model.device import Gpu, Placement
from dra_driver.model.health import Ailment, Cause, Condition, Severity
from dra_driver.model.inventory import Inventory
from dra_driver.model.names import monitor_name
from dra_driver.model.slices import TaintEffect
from dra_driver.rules.forms import all_forms
from dra_driver.rules.health import (
    CLEAR_MAX_S,
    CLEAR_S,
    ESCALATE_S,
    FORGET_S,
    HEALTH_TAINTS,
    History,
    afflicted,
    conditions,
    follow,
    with_health_taints,
    without_unusable,
)
from dra_driver.rules.publish import PublishMode, desired_pool
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from tests.kubelet_plugin.conftest import machine_of

LOOK_S = 6.0
HOT = Ailment(cause=Cause.THERMAL, severity=Severity.DEGRADED, message="too hot")
RESET = Ailment(cause=Cause.RECOVERY_DUE, severity=Severity.BROKEN, message="reset", detail="r")


def effects(history: History, now: float, *, on_broken: TaintEffect = "NoSchedule") -> list[str]:
    """What holds now, the worst first."""
    return [one.effect for one in conditions(history, now, on_broken=on_broken)]


def looks(history: History, *found: Ailment, first: float, last: float) -> History:
    """Every look from the first to the last found this."""
    now = first
    while now <= last:
        history = follow(history, found, now)
        now += LOOK_S
    return history


def test_what_is_broken_gets_no_claims_at_once() -> None:
    """It evicts only where that is allowed."""
    history = follow({}, [RESET], 0.0)
    assert effects(history, 0.0) == ["NoSchedule"]
    assert effects(history, 0.0, on_broken="NoExecute") == ["NoExecute"]


def test_what_is_degraded_is_marked_and_escalates_when_it_lasts() -> None:
    """It never evicts."""
    history = looks({}, HOT, first=0.0, last=ESCALATE_S)
    assert effects(history, ESCALATE_S - 1) == ["None"]
    assert effects(history, ESCALATE_S, on_broken="NoExecute") == ["NoSchedule"]


def test_nothing_is_over_before_it_was_away_for_a_while() -> None:
    """One look without it changes nothing, neither the effect nor since when."""
    history = follow({}, [RESET], 0.0)
    history = follow(history, [], LOOK_S)
    (gap,) = conditions(history, LOOK_S, on_broken="NoSchedule")
    history = follow(history, [RESET], 2 * LOOK_S)
    (back,) = conditions(history, 2 * LOOK_S, on_broken="NoSchedule")
    assert gap == back
    history = follow(history, [], 3 * LOOK_S)
    assert effects(history, 2 * LOOK_S + 2 * CLEAR_S - 1) == ["NoSchedule"]
    assert effects(history, 2 * LOOK_S + 2 * CLEAR_S) == []


def test_what_came_once_is_over_soon() -> None:
    """After CLEAR_S; the bar is a minute."""
    history = follow(follow({}, [HOT], 0.0), [], LOOK_S)
    assert effects(history, CLEAR_S) == []
    assert CLEAR_S + LOOK_S < 60


def test_what_comes_again_and_again_stays_longer_each_time_and_is_forgotten_at_last() -> None:
    """Twice as long, up to a limit; an hour of peace, and it counts as new."""
    history: History = {}
    now, held = 0.0, []
    for _ in range(8):
        history = follow(history, [HOT], now)
        history = follow(history, [], now + 1)
        away = next(s for s in range(1, 2000) if not effects(history, now + s))
        held.append(float(away))
        now += away + 1
    assert held[:5] == [CLEAR_S, 2 * CLEAR_S, 4 * CLEAR_S, 8 * CLEAR_S, 16 * CLEAR_S]
    assert set(held[5:]) == {CLEAR_MAX_S}
    history = follow(history, [], now + FORGET_S)
    assert history == {}


def test_a_condition_that_comes_back_after_it_was_over_begins_anew() -> None:
    """Its time, and with it the escalation."""
    history = follow(follow({}, [HOT], 0.0), [], 1.0)
    history = follow(history, [HOT], 2 * ESCALATE_S)
    (found,) = conditions(history, 2 * ESCALATE_S, on_broken="NoSchedule")
    assert (found.since, found.effect) == (2 * ESCALATE_S, "None")


def test_the_order_is_the_same_whichever_are_there() -> None:
    """Of two that came together neither passes the other when one is away for a look: a taint names the first."""
    first = replace(RESET, cause=Cause.DRIVER_ERROR, detail="48")
    second = replace(first, detail="95")
    history = follow({}, [second, first], 0.0)
    for number, found in enumerate(([first], [second], [first, second]), start=1):
        history = follow(history, found, number * LOOK_S)
        now = conditions(history, number * LOOK_S, on_broken="NoSchedule")
        assert [one.ailment.detail for one in now] == ["48", "95"]


def test_the_worst_comes_first_and_hides_nothing() -> None:
    """A harmless error after a fatal one takes nothing from it."""
    fatal = replace(RESET, cause=Cause.DRIVER_ERROR, detail="119")
    harmless = replace(fatal, severity=Severity.DEGRADED, detail="94")
    history = follow(follow({}, [fatal], 0.0), [harmless, fatal], LOOK_S)
    found = conditions(history, LOOK_S, on_broken="NoSchedule")
    assert [(one.ailment.detail, one.effect) for one in found] == [
        ("119", "NoSchedule"),
        ("94", "None"),
    ]


_FOUND = st.sets(st.sampled_from([HOT, RESET, replace(HOT, instance=Placement(0, 1))]))


@given(st.lists(_FOUND, min_size=1, max_size=200))
def test_whatever_is_found_the_rule_is_calm_and_misses_nothing(story: list[set[Ailment]]) -> None:
    """What is there counts; what counts was there not long ago; changes are few, however the symptoms flicker."""
    history: History = {}
    seen_at: dict[Ailment, float] = {}
    changes: dict[Ailment, int] = {}
    before: set[Ailment] = set()
    for number, found in enumerate(story):
        now = number * LOOK_S
        history = follow(history, found, now)
        seen_at |= dict.fromkeys(found, now)
        active = {one.ailment for one in conditions(history, now, on_broken="NoSchedule")}
        assert found <= active
        assert all(now - seen_at[one] < CLEAR_MAX_S for one in active)
        for one in active ^ before:
            changes[one] = changes.get(one, 0) + 1
        before = active
    assert all(count <= 12 for count in changes.values())


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    folder: Path = tmp_path_factory.mktemp("gpus")
    return discover(
        NvidiaBackend(SimulatedNvml(machine_of("H100-SXM5-80GB", 2), node="n", state_dir=folder))
    )


@pytest.fixture(scope="module")
def gpu(inventory: Inventory) -> Gpu:
    return inventory.gpus[0]


def condition(ailment: Ailment, effect: TaintEffect = "NoSchedule") -> Condition:
    """As it counts."""
    return Condition(ailment=ailment, since=0.0, effect=effect)


def test_an_ailment_of_the_gpu_concerns_all_its_devices(gpu: Gpu) -> None:
    """The monitor's too."""
    assert afflicted(gpu, [condition(RESET)]).keys() == {form.name for form in all_forms(gpu)}
    assert afflicted(gpu, []) == {}


@settings(max_examples=60)
@given(data=st.data())
def test_an_ailment_of_an_instance_concerns_whatever_shares_a_counter_of_its_place(
    gpu: Gpu, data: st.DataObject
) -> None:
    """Two forms are concerned by each other's ailments exactly if no layout can hold both in their places; the whole GPU always."""
    partitions = [form for form in all_forms(gpu) if form.placement is not None]
    sick = data.draw(st.sampled_from(partitions))
    found = afflicted(gpu, [condition(replace(RESET, instance=sick.placement))])
    assert gpu_form(gpu) in found
    for other in partitions:
        assert (other.name in found) == bool(other.positions & sick.positions)


def gpu_form(gpu: Gpu) -> str:
    """The whole GPU's name."""
    return next(form.name for form in all_forms(gpu) if form.placement is None and form.positions)


def test_taints_are_one_for_each_cause(inventory: Inventory, gpu: Gpu) -> None:
    """With the worst effect and its detail, beside the taints that are there; other GPUs' devices have none."""
    pool = desired_pool("n", inventory, frozenset(), PublishMode.FULL, 64)
    passing = replace(RESET, severity=Severity.DEGRADED, detail="other")
    found = [condition(RESET), condition(HOT, "None"), condition(passing, "None")]
    marked = with_health_taints(pool, afflicted(gpu, found))
    devices = {device.name: device for item in marked.slices for device in item.devices}
    taints = [(one.key, one.value, one.effect) for one in devices[gpu_form(gpu)].taints]
    assert taints == [
        (HEALTH_TAINTS[Cause.RECOVERY_DUE], "r", "NoSchedule"),
        (HEALTH_TAINTS[Cause.THERMAL], "", "None"),
    ]
    other = inventory.gpus[1]
    assert devices[gpu_form(other)].taints == ()
    assert with_health_taints(pool, {}) == pool


def test_whoever_watches_a_broken_gpu_is_not_evicted(inventory: Inventory, gpu: Gpu) -> None:
    """The monitor's taint says the same, and keeps the pods that are there to find out more."""
    pool = desired_pool("n", inventory, frozenset(), PublishMode.FULL, 64)
    marked = with_health_taints(pool, afflicted(gpu, [condition(RESET, "NoExecute")]))
    devices = {device.name: device for item in marked.slices for device in item.devices}
    assert [one.effect for one in devices[gpu_form(gpu)].taints] == ["NoExecute"]
    assert [one.effect for one in devices[monitor_name(gpu.pci_address)].taints] == [
        "NoSchedule",
        "NoSchedule",
    ]


def test_where_taints_are_not_kept_what_nobody_should_get_is_left_out(
    inventory: Inventory, gpu: Gpu
) -> None:
    """What is only marked stays."""
    pool = desired_pool("n", inventory, frozenset(), PublishMode.PLAIN, 64)
    names = [device.name for item in pool.slices for device in item.devices]
    kept = without_unusable(pool, afflicted(gpu, [condition(HOT, "None")]))
    assert kept == pool
    left = without_unusable(pool, afflicted(gpu, [condition(RESET)]))
    assert [device.name for item in left.slices for device in item.devices] == names[1:]
