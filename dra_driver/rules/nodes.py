"""Which nodes a device is reachable from, as node selectors say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dra_driver.model.slices import NodePlace, NodeRequirement


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """What node selectors look at."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


def reaches(place: NodePlace, node: NodeInfo) -> bool:
    """Whether devices at this place are usable on the node. A selector without requirements selects nothing."""
    if place.node_name is not None:
        return place.node_name == node.name
    if place.node_selector is not None:
        return bool(place.node_selector) and all(_holds(r, node) for r in place.node_selector)
    return place.all_nodes


def pinned_to(node: NodeInfo) -> tuple[NodeRequirement, ...]:
    """The selector of this one node."""
    return (NodeRequirement(key="metadata.name", operator="In", values=(node.name,), field=True),)


def merged(places: Iterable[NodePlace]) -> tuple[NodeRequirement, ...] | None:
    """All that the places' selectors require, each requirement once; None where they require nothing."""
    requirements: list[NodeRequirement] = []
    for place in places:
        for requirement in place.node_selector or ():
            if not any(_same(requirement, known) for known in requirements):
                requirements.append(requirement)
    return tuple(requirements) or None


def _same(one: NodeRequirement, other: NodeRequirement) -> bool:
    kind = (one.key, one.operator, one.field)
    return kind == (other.key, other.operator, other.field) and set(one.values) == set(other.values)


def _holds(requirement: NodeRequirement, node: NodeInfo) -> bool:
    facts: Mapping[str, str] = {"metadata.name": node.name} if requirement.field else node.labels
    value = facts.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            return _compares(requirement, value)


def _compares(requirement: NodeRequirement, value: str | None) -> bool:
    try:
        actual, bound = int(value or ""), int(requirement.values[0])
    except ValueError:
        return False
    return actual > bound if requirement.operator == "Gt" else actual < bound
