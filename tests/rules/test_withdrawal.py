"""The withdrawing rule: what somebody may hold stays, in its form and on its counters, until nobody does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.model.inventory import Fault
from dra_driver.model.quantity import Quantity
from dra_driver.model.slices import CounterConsumption, CounterSet, Device, ResourceSlice, Taint
from dra_driver.rules.devices import MONITOR_TAINT, PCI_BUS_ID
from dra_driver.rules.pool_diff import at_generation, diff_pool, with_known_times
from dra_driver.rules.pool_layout import DesiredPool, GpuOffer, lay_out, offers_in
from dra_driver.rules.publish import PublishMode
from dra_driver.rules.withdrawal import (
    UNHEALTHY_TAINT,
    WITHDRAWN_TAINT,
    Situation,
    Withdrawal,
    withdraw,
)

FULL, PLAIN = PublishMode.FULL, PublishMode.PLAIN


def device(gpu: str, name: str, takes: int = 1, **more: object) -> Device:
    """A device `<gpu>-<name>` that takes so much of its GPU's counter; nothing at all for 0."""
    part = CounterConsumption(counter_set=gpu, counters={"c": Quantity.of(takes)})
    return Device(
        name=f"{gpu}-{name}",
        attributes={"parent": gpu, PCI_BUS_ID: f"address of {gpu}"},
        consumes=(part,) if takes else (),
        **more,  # type: ignore[arg-type]
    )


def offer(gpu: str, *devices: Device, total: int = 7) -> GpuOffer:
    """What a GPU offers; without counters for a total of 0."""
    counters = CounterSet(name=gpu, counters={"c": Quantity.of(total)}) if total else None
    return GpuOffer(gpu=gpu, devices=devices, counters=counters)


def pool(*offers: GpuOffer) -> DesiredPool:
    """A pool of node `n`."""
    return lay_out("n/nvidia", "n", offers)


def step(
    desired: DesiredPool,
    offered: DesiredPool,
    *,
    unused: Iterable[str] = (),
    mode: PublishMode = FULL,
    faults: Sequence[str] = (),
) -> Withdrawal:
    """The rule, in few words."""
    situation = Situation(
        node="n",
        mode=mode,
        unused=frozenset(unused),
        faults=tuple(Fault(pci_address=address, message="no answer") for address in faults),
    )
    return withdraw(desired, offered.slices, situation)


def taints(slices: Iterable[ResourceSlice]) -> dict[str, list[str]]:
    """Keys of the taints of each device, in the order of publication."""
    return {d.name: [t.key for t in d.taints] for item in slices for d in item.devices}


A, B, C = device("a", "1"), device("a", "2"), device("b", "1")
BOTH = pool(offer("a", A, B), offer("b", C))


def test_what_is_wanted_is_published_as_it_is() -> None:
    """Nothing leaves, nothing is tainted, new devices come at once."""
    assert step(BOTH, pool()) == step(BOTH, BOTH) == Withdrawal(pool=BOTH)
    more = pool(offer("a", A, device("a", "new"), B), offer("b", C))
    assert step(more, BOTH).pool == more


def test_an_unwanted_device_is_tainted_in_its_place_until_nobody_uses_it() -> None:
    """Its taint rewrites its slice alone, in the same generation; wanted again, it loses it."""
    wanted = pool(offer("a", B), offer("b", C))
    first = step(wanted, BOTH)
    assert first.leaving == {"a-1"}
    assert taints(first.pool.slices) == {"a-1": [WITHDRAWN_TAINT], "a-2": [], "b-1": []}
    stored = [at_generation(item, 3) for item in BOTH.slices]
    writes = diff_pool(first.pool, stored).writes
    assert [(item.name, item.pool.generation) for item in writes] == [(BOTH.slices[1].name, 3)]
    assert step(wanted, first.pool) == first
    assert step(BOTH, first.pool) == Withdrawal(pool=BOTH)
    assert step(wanted, first.pool, unused=["a-1"]) == Withdrawal(pool=wanted)


def test_a_gpu_that_vanished_keeps_slice_and_counters_while_it_is_used() -> None:
    """Nobody else's slice moves; once only one device is used, the others go, and in the end all."""
    wanted = pool(offer("b", C))
    first = step(wanted, BOTH)
    assert [item.name for item in first.pool.slices] == [item.name for item in BOTH.slices]
    assert first.pool.slices[0].shared_counters == BOTH.slices[0].shared_counters
    then = step(wanted, first.pool, unused=["a-2"])
    assert taints(then.pool.slices) == {"a-1": [WITHDRAWN_TAINT], "b-1": []}
    assert then.pool.slices[0].shared_counters == BOTH.slices[0].shared_counters
    assert step(wanted, then.pool, unused=["a-1"]).pool == wanted


def test_a_device_that_takes_something_else_changes_when_nobody_uses_it() -> None:
    """Until then it is as it was; what is only described differently changes at once."""
    described = replace(A, attributes={**A.attributes, "index": 9})
    assert step(pool(offer("a", described, B), offer("b", C)), BOTH).leaving == frozenset()
    changed = device("a", "1", takes=2)
    wanted = pool(offer("a", changed, B), offer("b", C))
    first = step(wanted, BOTH)
    (kept, *_) = first.pool.slices[1].devices
    assert kept == replace(A, taints=(Taint(key=WITHDRAWN_TAINT),))
    assert step(wanted, first.pool, unused=["a-1"]).pool == wanted


def test_changed_counters_wait_for_the_whole_gpu() -> None:
    """Devices of old and new counters never stand side by side, as neither set would be right for both."""
    new = device("a", "new", takes=2)
    wanted = pool(offer("a", A, new, total=9), offer("b", C))
    first = step(wanted, BOTH)
    assert first.leaving == {"a-1", "a-2"}
    assert taints(first.pool.slices) == {
        "a-1": [WITHDRAWN_TAINT],
        "a-2": [WITHDRAWN_TAINT],
        "b-1": [],
    }
    then = step(wanted, first.pool, unused=["a-1"])
    assert "a-1" not in taints(then.pool.slices)
    assert offers_in(then.pool.slices)["a"].counters == offer("a").counters
    assert step(wanted, then.pool, unused=["a-2"]).pool == wanted


@pytest.mark.parametrize("address", ["address of a", "index 0"])
def test_a_gpu_that_does_not_answer_stays_and_is_tainted(address: str) -> None:
    """For as long as it takes, also where the fault cannot say which GPU it is; then the taint goes."""
    wanted = pool(offer("b", C))
    first = step(wanted, BOTH, faults=[address])
    assert first.leaving == frozenset()
    assert taints(first.pool.slices) == {
        "a-1": [UNHEALTHY_TAINT],
        "a-2": [UNHEALTHY_TAINT],
        "b-1": [],
    }
    again = step(wanted, first.pool, faults=[address], unused=["a-1", "a-2"])
    assert again.pool == first.pool
    assert step(BOTH, first.pool).pool == BOTH
    vanished = step(wanted, first.pool)
    assert set(taints(vanished.pool.slices)["a-1"]) == {WITHDRAWN_TAINT}


def test_a_fault_excuses_no_other_gpu() -> None:
    """One does not answer, another one vanished."""
    wanted = pool(offer("c", device("c", "1")))
    offered = pool(offer("a", A), offer("b", C), *offers_in(wanted.slices).values())
    result = step(wanted, offered, faults=["address of a"])
    assert result.leaving == {"b-1"}


def test_plain_keeps_what_is_used_without_taint_and_counters() -> None:
    """New devices of that GPU wait, as nothing tells them apart from it; a monitor just goes."""
    monitor = device("a", "monitor", takes=0, taints=(MONITOR_TAINT,))
    offered = pool(offer("a", A, B, monitor), offer("b", C))
    whole = device("a", "whole", takes=0)
    other = device("b", "whole", takes=0)
    wanted = pool(offer("a", whole, total=0), offer("b", other, total=0))
    first = step(wanted, offered, mode=PLAIN, unused=["a-2", "b-1"])
    assert first.leaving == {"a-1"}
    assert offers_in(first.pool.slices) == {
        "a": GpuOffer(gpu="a", devices=(replace(A, consumes=()),)),
        "b": offer("b", other, total=0),
    }
    assert step(wanted, first.pool, mode=PLAIN, unused=["a-1"]).pool == wanted


def test_a_node_that_gets_counters_gives_each_gpu_its_forms_when_it_is_free() -> None:
    """From PLAIN to FULL: partitions of a GPU that is used whole would be taken for free."""
    offered = pool(offer("a", device("a", "whole", takes=0), total=0))
    wanted = pool(offer("a", A, device("a", "whole", takes=7)))
    first = step(wanted, offered)
    assert taints(first.pool.slices) == {"a-whole": [WITHDRAWN_TAINT]}
    assert step(wanted, first.pool, unused=["a-whole"]).pool == wanted


def test_times_of_taints_stay() -> None:
    """A taint that was there keeps its time, whatever else is rewritten; others get theirs from the API server."""
    dated = Taint(key=WITHDRAWN_TAINT, time_added="2026-11-21T00:00:00Z")
    stored = pool(offer("a", replace(A, taints=(dated,)), B))
    first = with_known_times(step(pool(), stored).pool, stored.slices)
    assert [d.taints[0].time_added for d in first.slices[1].devices] == [dated.time_added, None]


_NAMES = ("1", "2", "3")


@st.composite
def _pools(draw: st.DrawFn) -> DesiredPool:
    offers = []
    for gpu in draw(st.sets(st.sampled_from("abc"))):
        names = draw(st.lists(st.sampled_from(_NAMES), min_size=1, unique=True))
        devices = [device(gpu, name, takes=draw(st.integers(1, 2))) for name in names]
        offers.append(offer(gpu, *devices, total=draw(st.integers(7, 8))))
    return pool(*sorted(offers, key=lambda one: one.gpu))


@given(
    st.lists(
        st.tuples(_pools(), st.sets(st.sampled_from([g + "-" + n for g in "abc" for n in _NAMES]))),
        min_size=2,
    )
)
def test_whatever_is_wanted_nothing_in_use_is_lost(
    story: list[tuple[DesiredPool, set[str]]],
) -> None:
    """Over any wishes and any use: a used device stays, takes the same of the same set, and is tainted unless it is wanted so."""
    offered = pool()
    for desired, used in story:
        before = {
            d.name: (d, gpu) for gpu in offers_in(offered.slices).values() for d in gpu.devices
        }
        unused = [name for name in before if name not in used]
        result = step(desired, offered, unused=unused)
        after = {
            d.name: (d, gpu) for gpu in offers_in(result.pool.slices).values() for d in gpu.devices
        }
        wished = {
            d.name: (d, gpu) for gpu in offers_in(desired.slices).values() for d in gpu.devices
        }
        for name in used & before.keys():
            assert after[name][0].consumes == before[name][0].consumes
            assert after[name][1].counters == before[name][1].counters
        for name, (one, gpu) in after.items():
            is_wished = name in wished and (one.consumes, gpu.counters) == (
                wished[name][0].consumes,
                wished[name][1].counters,
            )
            assert bool(one.taints) == (name in result.leaving) == (not is_wished)
        if not used & result.leaving:
            assert result.pool == desired
        offered = result.pool
