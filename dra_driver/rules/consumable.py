"""How much of a device's capacity a request takes (KEP-5075, consumable capacity).

A request has to name a capacity as the device does, with the driver's domain or without: the scheduler compares letters.
"""

from __future__ import annotations

from collections.abc import Mapping

from dra_driver.model.quantity import Quantity
from dra_driver.model.slices import Capacity, Device, RequestPolicy


def consumption(device: Device, wanted: Mapping[str, Quantity]) -> Mapping[str, Quantity] | None:
    """What the request takes of each capacity of the device, by the device's policies; None where it cannot be met.

    What is not asked for is taken at the policy's default, and without a policy as a whole. For a device that is
    allocated once, this is a filter only: it has to have what was asked for.
    """
    if not wanted.keys() <= device.capacity.keys():
        return None
    amounts = {name: _amount(c, wanted.get(name)) for name, c in device.capacity.items()}
    for name, capacity in device.capacity.items():
        if amounts[name] > capacity.value or not _permitted(amounts[name], capacity.policy):
            return None
    return amounts


def _amount(capacity: Capacity, asked: Quantity | None) -> Quantity:
    policy = capacity.policy or RequestPolicy()
    if asked is None:
        return capacity.value if policy.default is None else policy.default
    if policy.range_min is not None:
        return _rounded_up(max(asked, policy.range_min), policy.range_min, policy.range_step)
    return next((valid for valid in policy.valid_values if valid >= asked), asked)


def _rounded_up(amount: Quantity, least: Quantity, step: Quantity | None) -> Quantity:
    if step is None:
        return amount
    steps = -(-(amount.nanos - least.nanos) // step.nanos)
    return Quantity(least.nanos + steps * step.nanos, step.family)


def _permitted(amount: Quantity, policy: RequestPolicy | None) -> bool:
    if policy is None or amount == policy.default:
        return True
    if policy.valid_values:
        return amount in policy.valid_values
    if policy.range_max is not None and amount > policy.range_max:
        return False
    if policy.range_min is None or policy.range_step is None:
        return True
    return (amount.nanos - policy.range_min.nanos) % policy.range_step.nanos == 0
