"""What forms of a GPU take of it: by the counters that are published, and by its positions."""

from __future__ import annotations

from dra_driver.rules.devices import render_counters, render_device
from dra_driver.rules.forms import Form


def counters_suffice(forms: list[Form]) -> bool:
    """Whether the published counters allow these forms of one GPU together."""
    counters = render_counters(forms[0].gpu)
    assert counters is not None
    left = dict(counters.counters)
    for form in forms:
        for part in render_device(form, with_counters=True).consumes:
            for name, amount in part.counters.items():
                left[name] -= amount
    return all(amount.nanos >= 0 for amount in left.values())


def cells(form: Form) -> set[int]:
    """What the form takes, each position in as many pieces as a partition has parts."""
    partitioning = form.gpu.partitioning
    assert partitioning is not None
    is_part = form.placement is not None and form.profile is not None and form.profile.whole
    parts = {form.placement.part} if is_part and form.placement else range(partitioning.parts)
    return {position * partitioning.parts + part for position in form.positions for part in parts}
