"""A device's capacity and the policy by which requests take from it (KEP 5075)."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from dra_driver.model.quantity import Quantity
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.validation.findings import Findings

_VALID_VALUES: Final = 10


def validate_capacity(path: str, capacity: JsonObject, *, shared: bool, found: Findings) -> None:
    """A value, and a policy only if the device may be allocated more than once (`shared`)."""
    policy = capacity.get("requestPolicy")
    if policy is None:
        return
    here = f"{path}.requestPolicy"
    if not shared:
        found.forbidden(
            here, "may only be set on a device with `allowMultipleAllocations` set to true"
        )
    if "validValues" in policy and "validRange" in policy:
        found.forbidden(here, "only one of `validValues` or `validRange` is allowed")
    if ("validValues" in policy or "validRange" in policy) and "default" not in policy:
        found.required(f"{here}.default", "required with `validValues` or `validRange`")
        return
    default = _amount(policy.get("default"))
    if "validValues" in policy:
        _validate_values(here, policy, found)
    if "validRange" in policy:
        _validate_range(f"{here}.validRange", policy["validRange"], default, found)


def _validate_values(path: str, policy: JsonObject, found: Findings) -> None:
    values = [Quantity.parse(text) for text in policy["validValues"]]
    here = f"{path}.validValues"
    if not values:
        found.required(here)
    found.bound(here, values, _VALID_VALUES)
    for index, (before, value) in enumerate(pairwise(values), start=1):
        if value == before:
            found.duplicate(f"{here}[{index}]", str(value))
        elif value < before:
            found.invalid(
                f"{here}[{index}]", str(value), "values must be sorted in ascending order"
            )
    if Quantity.parse(policy["default"]) not in values:
        why = "default value is not valid according to the requestPolicy"
        found.invalid(here, policy["default"], why)


def _validate_range(
    path: str, allowed: JsonObject, default: Quantity | None, found: Findings
) -> None:
    least, most, step = (_amount(allowed.get(field)) for field in ("min", "max", "step"))
    if least is None:
        found.required(f"{path}.min")
        return
    if most is not None and most < least:
        found.invalid(f"{path}.max", str(most), "must not be less than `min`")
    if step is not None and step.nanos <= 0:
        found.invalid(f"{path}.step", str(step), "must be greater than zero")
        return
    if default is None:
        return
    if default < least:
        found.invalid(f"{path}.default", str(default), f"default is less than min: {least}")
    if most is not None and default > most:
        found.invalid(f"{path}.default", str(default), f"default is more than max: {most}")
    for end in (default, most):
        if step is not None and end is not None and (end.nanos - least.nanos) % step.nanos:
            why = f"value is not a multiple of a given step ({step}) from ({least})"
            found.invalid(f"{path}.step", str(end), why)


def _amount(text: str | None) -> Quantity | None:
    return None if text is None else Quantity.parse(text)
