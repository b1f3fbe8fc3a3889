"""Constraints between the devices of a claim: equal in an attribute, or all different in it."""

from __future__ import annotations

from collections.abc import Iterable

from dra_driver.model.claim import Constraint
from dra_driver.model.slices import AttributeValue
from dra_driver.rules.pools import Candidate


def allows(constraint: Constraint, chosen: Iterable[Candidate], candidate: Candidate) -> bool:
    """Whether the candidate may join those already chosen under this constraint; without the attribute it may not."""
    name = constraint.match or constraint.distinct or ""
    value = attribute(candidate, name)
    if value is None:
        return False
    equal = (_equal(value, attribute(other, name)) for other in chosen)
    return all(equal) if constraint.match is not None else not any(equal)


def attribute(candidate: Candidate, name: str) -> AttributeValue | None:
    """The attribute of that qualified name; the device may omit the domain where it is its driver's."""
    attributes = candidate.device.attributes
    if name in attributes:
        return attributes[name]
    domain, _, identifier = name.partition("/")
    return attributes.get(identifier) if domain == candidate.id.driver else None


def _equal(one: AttributeValue, other: AttributeValue | None) -> bool:
    """Equal in type and value: 1 is not true."""
    return type(one) is type(other) and one == other
