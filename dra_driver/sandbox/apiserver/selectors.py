"""Label and field selectors: parsed once, asked for every object."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import ServedKind
from dra_driver.sandbox.apiserver.objects import inside, metadata
from dra_driver.sandbox.apiserver.status import bad_request

_COMMA: Final = re.compile(r",(?![^(]*\))")
_KEY: Final = r"(?P<key>[A-Za-z0-9][-A-Za-z0-9_./]*)"
_SET: Final = re.compile(rf"{_KEY}\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_EQUALITY: Final = re.compile(rf"{_KEY}\s*(?P<operator>==|=|!=)\s*(?P<value>[-A-Za-z0-9_.]*)")
_EXISTENCE: Final = re.compile(rf"(?P<negation>!?)\s*{_KEY}")
_FIELD: Final = re.compile(r"(?P<path>[\w.]+)(?P<operator>==|=|!=)(?P<value>.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRequirement:
    """One condition on one label."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: frozenset[str] = frozenset()

    def admits(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels fulfil it; NotIn is also fulfilled by a label that is not there."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRequirement:
    """One field has, or has not, this value; a field that is not there reads as the empty text."""

    path: tuple[str, ...]
    value: str
    equal: bool = True

    def admits(self, obj: JsonObject) -> bool:
        """Whether the object fulfils it."""
        found = inside(obj, *self.path)
        text = str(found).lower() if isinstance(found, bool) else str(found or "")
        return (text == self.value) is self.equal


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which objects a list, a watch or a deletecollection is about. An empty namespace means all."""

    namespace: str = ""
    labels: tuple[LabelRequirement, ...] = ()
    fields: tuple[FieldRequirement, ...] = ()

    def admits(self, obj: JsonObject) -> bool:
        """Whether the object is selected."""
        meta = metadata(obj)
        return (
            self.namespace in {"", meta.get("namespace", "")}
            and all(one.admits(meta.get("labels", {})) for one in self.labels)
            and all(one.admits(obj) for one in self.fields)
        )


def select(
    served: ServedKind, namespace: str = "", *, labels: str = "", fields: str = ""
) -> Selection:
    """What the texts of `labelSelector` and `fieldSelector` select; 400 for what they cannot."""
    return Selection(
        namespace=namespace,
        labels=tuple(_label_requirement(part) for part in _parts(labels)),
        fields=tuple(_field_requirement(served, part) for part in _parts(fields)),
    )


def _parts(text: str) -> list[str]:
    return [part.strip() for part in _COMMA.split(text) if part.strip()]


def _label_requirement(text: str) -> LabelRequirement:
    if match := _SET.fullmatch(text):
        values = frozenset(value.strip() for value in match["values"].split(","))
        operator: Literal["In", "NotIn"] = "In" if match["operator"] == "in" else "NotIn"
        return LabelRequirement(key=match["key"], operator=operator, values=values)
    if match := _EQUALITY.fullmatch(text):
        operator = "NotIn" if match["operator"] == "!=" else "In"
        value = frozenset({match["value"]})
        return LabelRequirement(key=match["key"], operator=operator, values=value)
    if match := _EXISTENCE.fullmatch(text):
        existence: Literal["Exists", "DoesNotExist"]
        existence = "DoesNotExist" if match["negation"] else "Exists"
        return LabelRequirement(key=match["key"], operator=existence)
    raise bad_request(f"unable to parse requirement: {text!r} is not a label selector")


def _field_requirement(served: ServedKind, text: str) -> FieldRequirement:
    match = _FIELD.fullmatch(text)
    if match is None:
        raise bad_request(f"invalid selector: '{text}'; can't understand '{text}'")
    path = match["path"]
    if path not in served.fields | {"metadata.name", "metadata.namespace"}:
        raise bad_request(f'field label not supported for "{served.kind.kind}": {path}')
    return FieldRequirement(
        path=tuple(path.split(".")), value=match["value"], equal=match["operator"] != "!="
    )
