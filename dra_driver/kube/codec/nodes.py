"""Node selectors: the API's single-term NodeSelector as a tuple of requirements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from dra_driver.kube.codec.part import Part, filled
from dra_driver.model.slices import NodePlace, NodeRequirement
from dra_driver.ports import JsonObject

_Operator: TypeAlias = Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
_OPERATORS: tuple[_Operator, ...] = get_args(_Operator)


def place_from(part: Part) -> NodePlace:
    """`nodeName`, `nodeSelector` and `allNodes` of a slice's spec or of a device."""
    return NodePlace(
        node_name=part.optional_text("nodeName"),
        node_selector=selector_from(part),
        all_nodes=part.flag("allNodes"),
    )


def place_to(place: NodePlace) -> JsonObject:
    """The fields that say it, to be merged into a slice's spec or a device."""
    fields = filled({"nodeName": place.node_name, "allNodes": place.all_nodes})
    return {**fields, **selector_to(place.node_selector)}


def selector_from(part: Part) -> tuple[NodeRequirement, ...] | None:
    """The requirements of `nodeSelector`, None where there is no selector."""
    selector = part.optional_part("nodeSelector")
    if selector is None:
        return None
    terms = list(selector.parts("nodeSelectorTerms"))
    if len(terms) != 1:
        raise selector.odd("nodeSelectorTerms", f"has {len(terms)} terms, not exactly one")
    (term,) = terms
    return (
        *(_requirement(e, field=False) for e in term.parts("matchExpressions")),
        *(_requirement(e, field=True) for e in term.parts("matchFields")),
    )


def selector_to(requirements: Sequence[NodeRequirement] | None) -> JsonObject:
    """The `nodeSelector` field with its one term, or nothing."""
    if requirements is None:
        return {}
    term = {
        "matchExpressions": [_requirement_to(r) for r in requirements if not r.field],
        "matchFields": [_requirement_to(r) for r in requirements if r.field],
    }
    return {"nodeSelector": {"nodeSelectorTerms": [filled(term)]}}


def _requirement(part: Part, *, field: bool) -> NodeRequirement:
    return NodeRequirement(
        key=part.text("key"),
        operator=part.choice("operator", _OPERATORS),
        values=part.texts("values"),
        field=field,
    )


def _requirement_to(requirement: NodeRequirement) -> JsonObject:
    values = filled({"values": list(requirement.values)})
    return {"key": requirement.key, "operator": requirement.operator, **values}
