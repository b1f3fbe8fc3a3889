"""The API without HTTP, for tests with thousands of interleavings and for controllers in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from dra_driver.model.errors import Conflict, Forbidden, Gone, Invalid, KubeError, NotFound
from dra_driver.model.kinds import POD, Kind
from dra_driver.ports import JsonObject, Listing, WatchEvent
from dra_driver.sandbox.apiserver.catalog import ServedKind
from dra_driver.sandbox.apiserver.deletion import DeleteOptions
from dra_driver.sandbox.apiserver.gates import Gates
from dra_driver.sandbox.apiserver.listing import Page, list_objects, parse_number
from dra_driver.sandbox.apiserver.objects import copied, metadata
from dra_driver.sandbox.apiserver.patches import merge
from dra_driver.sandbox.apiserver.resources import Resources, Target, WriteOptions
from dra_driver.sandbox.apiserver.selectors import Selection, select
from dra_driver.sandbox.apiserver.status import Refusal, unknown_path
from dra_driver.sandbox.apiserver.store import Store
from dra_driver.sandbox.apiserver.watching import Watch, watch_events

_ERRORS: Final[Mapping[int, type[KubeError]]] = {
    400: Invalid,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
}


class LocalApi:
    """`ports.KubeApi` on a store. No call waits for anything: awaiting one never lets another task run.

    Objects are copies, in and out, as they would be over HTTP. Owners' dependents are collected only while a
    `Collector` runs (an `ApiServer` runs one).
    """

    def __init__(
        self,
        store: Store,
        *,
        gates: Gates | None = None,
        version: tuple[int, int, int] = (1, 37, 1),
    ) -> None:
        self._store = store
        self._resources = Resources(store, gates)
        self._version = version

    async def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> JsonObject:
        """One object, read consistently."""
        with _translated_errors():
            return copied(self._resources.get(self._target(kind, namespace, name)))

    async def list(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        selectors: Mapping[str, str] | None = None,
    ) -> Listing:
        """All selected objects."""
        with _translated_errors():
            served = self._served(kind)
            selection = _selection(served, namespace, selectors)
            listed = copied(list_objects(self._store, served, selection, Page()))
        return Listing(tuple(listed["items"]), listed["metadata"]["resourceVersion"])

    async def watch(
        self,
        kind: Kind,
        *,
        resource_version: str,
        namespace: str | None = None,
        selectors: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes after `resource_version`, without end; Gone when that is forgotten."""
        with _translated_errors():
            served = self._served(kind)
            selection = _selection(served, namespace, selectors)
            version = parse_number("resourceVersion", resource_version)
        watch = Watch(served=served, selection=selection, version=version)
        async for event in watch_events(self._store, watch):
            if event["type"] == "ERROR":
                raise Gone(event["object"]["message"], status=410)
            yield WatchEvent(event["type"], copied(event["object"]))

    async def create(
        self, kind: Kind, body: JsonObject, *, namespace: str | None = None, dry_run: bool = False
    ) -> JsonObject:
        """The object as stored."""
        with _translated_errors():
            target = self._target(kind, namespace or body.get("metadata", {}).get("namespace"))
            options = WriteOptions(dry_run=dry_run)
            return copied(self._resources.create(target, body, options))

    async def replace(self, kind: Kind, body: JsonObject) -> JsonObject:
        """PUT the object that the body names."""
        with _translated_errors():
            meta = metadata(body)
            target = self._target(kind, meta.get("namespace"), meta["name"])
            return copied(self._resources.update(target, body))

    async def patch(
        self,
        kind: Kind,
        name: str,
        patch: JsonObject,
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> JsonObject:
        """A merge patch; a resourceVersion in it fences the write."""
        with _translated_errors():
            target = self._target(kind, namespace, name, subresource)
            return copied(self._resources.patch(target, lambda present: merge(present, patch)))

    async def delete(
        self,
        kind: Kind,
        name: str,
        *,
        namespace: str | None = None,
        preconditions: Mapping[str, str] | None = None,
        grace_period_s: int | None = None,
    ) -> None:
        """Delete; with finalizers or a grace period the object is only terminating afterwards."""
        expected = preconditions or {}
        options = DeleteOptions(
            grace_period_s=grace_period_s,
            uid=expected.get("uid"),
            resource_version=expected.get("resourceVersion"),
        )
        with _translated_errors():
            self._resources.delete(self._target(kind, namespace, name), options)

    async def bind(self, namespace: str, name: str, node: str) -> None:
        """Put a pod on a node, as a POST to `pods/binding` does; Conflict if it is on one already."""
        with _translated_errors():
            self._resources.bind(self._target(POD, namespace, name), node)

    async def server_version(self) -> tuple[int, int, int]:
        """Major, minor, patch."""
        return self._version

    def _served(self, kind: Kind) -> ServedKind:
        served = self._resources.catalog.find(kind.group, kind.version, kind.plural)
        if served is None:
            raise unknown_path()
        return served

    def _target(
        self, kind: Kind, namespace: str | None, name: str = "", subresource: str | None = None
    ) -> Target:
        return Target(
            served=self._served(kind),
            namespace=namespace or "",
            name=name,
            subresource=subresource or "",
        )


def _selection(
    served: ServedKind, namespace: str | None, selectors: Mapping[str, str] | None
) -> Selection:
    texts = selectors or {}
    return select(
        served,
        namespace or "",
        labels=texts.get("labelSelector", ""),
        fields=texts.get("fieldSelector", ""),
    )


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except Refusal as refusal:
        error = _ERRORS.get(refusal.code, KubeError)
        raise error(str(refusal), status=refusal.code) from refusal
