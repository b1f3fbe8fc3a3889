"""A local copy of one kind's objects, kept current by list and watch, as client-go's reflector does.

Level-triggered on purpose: a reader looks at `Cache.objects`; a change only tells it when to look.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import structlog

from dra_driver.kube.backoff import Backoff
from dra_driver.model.errors import KubeError, Unavailable
from dra_driver.model.kinds import Kind
from dra_driver.ports import Clock, JsonObject, KubeApi, SystemClock, WatchEvent

Key: TypeAlias = tuple[str, str]
OnChange: TypeAlias = Callable[[WatchEvent], None]

_RELIST_S = (300.0, 600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which objects: a kind, perhaps of one namespace, perhaps only those that selectors choose."""

    kind: Kind
    namespace: str | None = None
    selectors: Mapping[str, str] | None = None


class Cache:
    """The scope's objects by (namespace, name), as far as the server has told; never change them.

    `synced` is set after the first complete list. `on_change` is called, in order, with every ADDED, MODIFIED and
    DELETED, whether a watch or a repeated list brought it, and with a BOOKMARK at the end of every list: what came and
    went unseen is in no other event. The objects are up to date when it is called. A cluster-scoped object's namespace is "".
    """

    def __init__(
        self,
        api: KubeApi,
        scope: Scope,
        *,
        on_change: OnChange | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.synced = asyncio.Event()
        self._api = api
        self._scope = scope
        self._on_change = on_change
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 -- jitter, not secrets
        self._backoff = Backoff(rng=self._rng)
        self._objects: dict[Key, JsonObject] = {}
        self._version: str | None = None
        self._relist_at = 0.0
        self._log: Any = structlog.get_logger().bind(watch=scope.kind.plural)

    @property
    def objects(self) -> Mapping[Key, JsonObject]:
        """A live view."""
        return MappingProxyType(self._objects)

    async def run(self) -> None:
        """Keep the copy current until cancelled; no error of the API server ends it."""
        while True:
            retry_after_s = 0.0
            try:
                if self._version is None or self._clock.monotonic() >= self._relist_at:
                    await self._list()
                await self._watch()
            except Unavailable as error:
                retry_after_s = error.retry_after_s or 0.0
                self._log.warning("watch_interrupted", error=str(error))
            except KubeError as error:
                # Gone above all: where the watch stood is forgotten, only a list helps.
                self._version = None
                self._log.warning("watch_restarts", error=str(error))
            # Also after a watch that ended well: a server that ends all watches at once gets no stampede.
            await self._clock.sleep(max(self._backoff.pause_s(), retry_after_s))

    async def _list(self) -> None:
        """Learn everything anew, and report the differences."""
        scope = self._scope
        listing = await self._api.list(
            scope.kind, namespace=scope.namespace, selectors=scope.selectors
        )
        listed = {_key(item): item for item in listing.items}
        for key in self._objects.keys() - listed.keys():
            self._apply(WatchEvent("DELETED", self._objects[key]))
        for key, item in listed.items():
            known = self._objects.get(key)
            if known is None:
                self._apply(WatchEvent("ADDED", item))
            elif _version(known) != _version(item):
                self._apply(WatchEvent("MODIFIED", item))
        self._version = listing.resource_version
        self._relist_at = self._clock.monotonic() + self._rng.uniform(*_RELIST_S)
        self.synced.set()
        self._tell(WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": self._version}}))

    async def _watch(self) -> None:
        """Follow one watch until the server ends it or the next list is due."""
        assert self._version is not None
        scope, began = self._scope, self._clock.monotonic()
        events = self._api.watch(
            scope.kind,
            resource_version=self._version,
            namespace=scope.namespace,
            selectors=scope.selectors,
        )
        async with aclosing(events):
            async for event in events:
                self._version = _version(event.object) or self._version
                self._apply(event)
                self._backoff.reset()
                if self._clock.monotonic() >= self._relist_at:
                    return
        if self._clock.monotonic() - began > self._backoff.most_s:
            self._backoff.reset()

    def _apply(self, event: WatchEvent) -> None:
        if event.type == "BOOKMARK":
            return
        if event.type == "DELETED":
            self._objects.pop(_key(event.object), None)
        else:
            self._objects[_key(event.object)] = event.object
        self._tell(event)

    def _tell(self, event: WatchEvent) -> None:
        if self._on_change is not None:
            self._on_change(event)


def _key(item: JsonObject) -> Key:
    metadata = item.get("metadata", {})
    return metadata.get("namespace", ""), metadata.get("name", "")


def _version(item: JsonObject) -> str | None:
    version: str | None = item.get("metadata", {}).get("resourceVersion")
    return version
