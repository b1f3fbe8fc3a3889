"""Which kinds are served: the built-in ones, and those that stored CustomResourceDefinitions define."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from dra_driver.model import kinds
from dra_driver.model.kinds import Kind
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver import schemas


class GroupResource(NamedTuple):
    """What names a kind's objects in the store; prints as `resourceslices.resource.k8s.io`."""

    group: str
    plural: str

    def __str__(self) -> str:
        return ".".join(filter(None, (self.plural, self.group)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A printer column that a definition adds: `path` is its jsonPath."""

    name: str
    type: str
    path: str
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedKind:
    """A kind, and how the server treats it.

    `status`: has a status subresource. `generation`: counts spec changes. `unconditional`: a PUT needs no
    resourceVersion. `fields`: field selectors beyond metadata.name and metadata.namespace.
    """

    kind: Kind
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    generation: bool = False
    unconditional: bool = True
    fields: frozenset[str] = frozenset()
    custom: bool = False
    columns: tuple[Column, ...] = ()
    schema: Mapping[str, Any] = field(
        default_factory=lambda: schemas.ANY, repr=False, hash=False, compare=False
    )

    @property
    def resource(self) -> GroupResource:
        """The kind's place in the store."""
        return GroupResource(self.kind.group, self.kind.plural)


POD: Final = ServedKind(
    kind=kinds.POD,
    short_names=("po",),
    categories=("all",),
    status=True,
    generation=True,
    fields=frozenset({"spec.nodeName", "status.phase"}),
    schema=schemas.POD,
)
NAMESPACE: Final = ServedKind(
    kind=kinds.NAMESPACE, short_names=("ns",), status=True, fields=frozenset({"status.phase"})
)
CUSTOM_RESOURCE_DEFINITION: Final = ServedKind(
    kind=kinds.CUSTOM_RESOURCE_DEFINITION,
    short_names=("crd", "crds"),
    categories=("api-extensions",),
    status=True,
    generation=True,
    unconditional=False,
    schema=schemas.CUSTOM_RESOURCE_DEFINITION,
)
RESOURCE_CLAIM: Final = ServedKind(
    kind=kinds.RESOURCE_CLAIM, status=True, schema=schemas.RESOURCE_CLAIM
)
RESOURCE_SLICE: Final = ServedKind(
    kind=kinds.RESOURCE_SLICE,
    generation=True,
    fields=frozenset({"spec.nodeName", "spec.driver"}),
    schema=schemas.RESOURCE_SLICE,
)
_EVENT_FIELDS = frozenset(
    {f"involvedObject.{part}" for part in ("kind", "namespace", "name", "uid", "fieldPath")}
    | {"reason", "type", "reportingComponent"}
)
_BUILT_IN: Final = (
    ServedKind(
        kind=kinds.NODE,
        short_names=("no",),
        status=True,
        fields=frozenset({"spec.unschedulable"}),
        schema=schemas.NODE,
    ),
    NAMESPACE,
    POD,
    ServedKind(kind=kinds.EVENT, short_names=("ev",), fields=_EVENT_FIELDS),
    ServedKind(kind=kinds.LEASE, unconditional=False),
    ServedKind(kind=kinds.DEVICE_CLASS, generation=True, schema=schemas.DEVICE_CLASS),
    RESOURCE_CLAIM,
    ServedKind(kind=kinds.RESOURCE_CLAIM_TEMPLATE, schema=schemas.RESOURCE_CLAIM_TEMPLATE),
    RESOURCE_SLICE,
    CUSTOM_RESOURCE_DEFINITION,
)
_BY_PATH: Final = MappingProxyType(
    {(one.kind.group, one.kind.version, one.kind.plural): one for one in _BUILT_IN}
)


class Definitions(Protocol):
    """Where stored objects are read: all that the catalogue needs of the store."""

    def objects(self, resource: GroupResource) -> Mapping[tuple[str, str], JsonObject]:
        """All objects of one resource by (namespace, name)."""


class Catalog:
    """What is served now."""

    def __init__(self, store: Definitions) -> None:
        self._store = store

    def find(self, group: str, version: str, plural: str) -> ServedKind | None:
        """The kind served at this place, or None."""
        built_in = _BY_PATH.get((group, version, plural))
        if built_in is not None:
            return built_in
        definition = self._definitions().get(("", f"{plural}.{group}"))
        served = () if definition is None else custom_kinds(definition)
        return next((one for one in served if one.kind.version == version), None)

    def storing(self, resource: GroupResource) -> ServedKind | None:
        """The kind, in any of its versions, whose objects are stored there."""
        return next((one for one in self.all() if one.resource == resource), None)

    def all(self) -> Iterator[ServedKind]:
        """Every served kind; a custom kind once for each served version."""
        yield from _BUILT_IN
        for definition in self._definitions().values():
            yield from custom_kinds(definition)

    def _definitions(self) -> Mapping[tuple[str, str], JsonObject]:
        return self._store.objects(CUSTOM_RESOURCE_DEFINITION.resource)


def custom_kinds(definition: JsonObject) -> Iterator[ServedKind]:
    """The kinds that a CustomResourceDefinition defines, one for each served version."""
    spec = definition["spec"]
    names = spec["names"]
    for version in spec["versions"]:
        if not version.get("served", False):
            continue
        schema = version.get("schema", {}).get("openAPIV3Schema", {})
        yield ServedKind(
            kind=Kind(
                group=spec["group"],
                version=version["name"],
                kind=names["kind"],
                plural=names["plural"],
                namespaced=spec["scope"] == "Namespaced",
            ),
            short_names=tuple(names.get("shortNames", ())),
            categories=tuple(names.get("categories", ())),
            status="status" in version.get("subresources", {}),
            generation=True,
            unconditional=False,
            custom=True,
            columns=tuple(map(_column, version.get("additionalPrinterColumns", ()))),
            schema=schemas.custom(schema),
        )


def _column(raw: JsonObject) -> Column:
    return Column(
        name=raw.get("name", ""),
        type=raw.get("type", "string"),
        path=raw.get("jsonPath", ""),
        priority=raw.get("priority", 0),
    )
