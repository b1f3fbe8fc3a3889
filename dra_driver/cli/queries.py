"""What `dra` asks the API server: objects by name or by selector, and our devices with their use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import click

from dra_driver.kube.codec import claim_from_json, slice_from_json
from dra_driver.kube.credentials import Access, find_endpoint
from dra_driver.kube.rest import RestApi
from dra_driver.model.errors import DraError, NotFound
from dra_driver.model.kinds import RESOURCE_CLAIM, RESOURCE_SLICE, Kind
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import JsonObject, KubeApi
from dra_driver.rules.usage import DeviceUse, device_uses

T = TypeVar("T")

OURS = f"spec.driver={DRIVER_NAME}"
"""Field selector for our ResourceSlices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which objects of a kind: those named, or all that match. `namespace` None means all."""

    kind: Kind
    names: tuple[str, ...] = ()
    namespace: str | None = None
    labels: str | None = None
    fields: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[T]):
    """What was found, in the order in which to show it, and an error for each name that was not."""

    rows: Sequence[T]
    failures: Sequence[DraError] = ()


def connect(access: Access) -> RestApi:
    """The API server, to be used as an async context manager. Raises SettingsError where none can be found."""
    return RestApi(find_endpoint(access), component="dra")


async def find_objects(api: KubeApi, query: Query) -> Found[JsonObject]:
    """The named objects in the order of the names, or else all that match, sorted."""
    if query.names:
        return await _find_named(api, query)
    selectors = {"labelSelector": query.labels, "fieldSelector": query.fields}
    listing = await api.list(
        query.kind,
        namespace=query.namespace,
        selectors={name: text for name, text in selectors.items() if text},
    )
    return Found(rows=sorted(listing.items, key=_place))


async def find_devices(api: KubeApi, names: Sequence[str] = ()) -> Found[DeviceUse]:
    """Our devices of those names (`<device>` or `<pool>/<device>`), or all of them, with their use.

    An object that cannot be understood is left out with a warning on stderr.
    """
    slices = await api.list(RESOURCE_SLICE, selectors={"fieldSelector": OURS})
    claims = await api.list(RESOURCE_CLAIM)
    uses = device_uses(
        DRIVER_NAME,
        _decoded(slice_from_json, slices.items),
        _decoded(claim_from_json, claims.items),
    )
    if not names:
        return Found(rows=uses)
    named = {name: [use for use in uses if name in _names(use)] for name in names}
    return Found(
        rows=[use for use in uses if _names(use) & named.keys()],
        failures=[
            NotFound(f"device {name}: {DRIVER_NAME} publishes none of that name")
            for name, found in named.items()
            if not found
        ],
    )


async def _find_named(api: KubeApi, query: Query) -> Found[JsonObject]:
    rows: list[JsonObject] = []
    failures: list[DraError] = []
    for name in query.names:
        try:
            rows.append(await api.get(query.kind, name, namespace=query.namespace))
        except NotFound as error:
            failures.append(error)
    return Found(rows=rows, failures=failures)


def _decoded(decode: Callable[[JsonObject], T], items: Sequence[JsonObject]) -> list[T]:
    values: list[T] = []
    for item in items:
        try:
            values.append(decode(item))
        except DraError as error:
            click.echo(f"warning: left out: {error}", err=True)
    return values


def _names(use: DeviceUse) -> set[str]:
    return {use.device.name, f"{use.pool}/{use.device.name}"}


def _place(item: JsonObject) -> tuple[str, str]:
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
