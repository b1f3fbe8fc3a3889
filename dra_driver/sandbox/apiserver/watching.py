"""Watches: the history of a resource as one client selected to see it, and then the future."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import ServedKind
from dra_driver.sandbox.apiserver.objects import metadata
from dra_driver.sandbox.apiserver.selectors import Selection
from dra_driver.sandbox.apiserver.status import Refusal
from dra_driver.sandbox.apiserver.store import Change, Store

Event: TypeAlias = dict[str, Any]
"""`type` and `object`, as they go over the wire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a client wants to see. `version` 0: the present objects as ADDED, then what follows.

    `bookmark_period_s`: how often to tell a client that asked for it how far it has come. `initial_bookmark`: mark the
    end of the present objects, as a streaming list wants it.
    """

    served: ServedKind
    selection: Selection
    version: int = 0
    bookmark_period_s: float | None = None
    initial_bookmark: bool = False


async def watch_events(store: Store, watch: Watch) -> AsyncGenerator[Event, None]:
    """Events without end; only a version that is forgotten ends them, with an ERROR event."""
    resource, position = watch.served.resource, watch.version
    if position == 0:
        position = store.version
        for event in _present(store, watch):
            yield event
    if watch.initial_bookmark:
        yield _bookmark(watch.served, position, initial=True)
    while True:
        try:
            changes = store.changes(resource, position)
        except Refusal as refusal:
            yield {"type": "ERROR", "object": refusal.body()}
            return
        for change in changes:
            position = change.version
            seen = _translated(watch.selection, change)
            if seen is not None:
                yield seen
        if not changes:
            position = store.version
            if not await _changed(store, watch):
                yield _bookmark(watch.served, position)


async def _changed(store: Store, watch: Watch) -> bool:
    """Wait for the next change; False when a bookmark is due before."""
    try:
        async with asyncio.timeout(watch.bookmark_period_s):
            await store.changed(watch.served.resource)
    except TimeoutError:
        return False
    return True


def _present(store: Store, watch: Watch) -> Iterator[Event]:
    objects = sorted(store.objects(watch.served.resource).items(), key=lambda pair: pair[0])
    for _, obj in objects:
        if watch.selection.admits(obj):
            yield {"type": "ADDED", "object": obj}


def _translated(selection: Selection, change: Change) -> Event | None:
    """The change as somebody sees it who sees only selected objects: they come and go as they start and stop matching."""
    was = change.previous is not None and selection.admits(change.previous)
    now = change.type != "DELETED" and selection.admits(change.object)
    if now:
        return {"type": "MODIFIED" if was else "ADDED", "object": change.object}
    if not was:
        return None
    assert change.previous is not None
    meta = {**metadata(change.previous), "resourceVersion": str(change.version)}
    return {"type": "DELETED", "object": {**change.previous, "metadata": meta}}


def _bookmark(served: ServedKind, version: int, *, initial: bool = False) -> Event:
    meta: JsonObject = {"resourceVersion": str(version)}
    if initial:
        meta["annotations"] = {"k8s.io/initial-events-end": "true"}
    kind = served.kind
    obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}
    return {"type": "BOOKMARK", "object": obj}
