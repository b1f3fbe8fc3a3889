"""Objects, and the history of their changes: one counter orders everything, as etcd's revision does.

Stored objects are never changed in place: a write replaces them, so history, watchers and readers share them without
copying. All methods are synchronous and atomic within the event loop.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import GroupResource
from dra_driver.sandbox.apiserver.objects import metadata
from dra_driver.sandbox.apiserver.status import expired

Key: TypeAlias = tuple[str, str]
"""Namespace (empty for cluster-scoped objects) and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One write. For DELETED, `object` is the last state, stamped with the deletion's version."""

    version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: JsonObject
    previous: JsonObject | None = None


class _Shelf:
    """One resource's objects, its remembered changes, and a bell that rings at the next one."""

    def __init__(self) -> None:
        self.objects: dict[Key, JsonObject] = {}
        self.changes: list[Change] = []
        self.forgotten = 0  # the newest version whose change is remembered no more
        self.bell = asyncio.Event()

    def record(self, change: Change, limit: int) -> None:
        self.changes.append(change)
        if len(self.changes) > 2 * limit:  # in bulk, so that a write costs the same on average
            self.forget(len(self.changes) - limit)
        self.bell.set()
        self.bell = asyncio.Event()

    def forget(self, count: int) -> None:
        if count > 0:
            self.forgotten = self.changes[count - 1].version
            del self.changes[:count]


class Store:
    """All objects of a cluster. Remembers at least `history` changes of each resource, and at most twice as many."""

    def __init__(self, *, history: int = 10_000) -> None:
        self._history = history
        self._shelves: defaultdict[GroupResource, _Shelf] = defaultdict(_Shelf)
        self._uids: set[str] = set()
        self._observers: list[Callable[[GroupResource, Change], None]] = []
        self.version = 1
        """The newest resourceVersion."""

    def get(self, resource: GroupResource, key: Key) -> JsonObject | None:
        """One object, not to be changed, or None."""
        return self._shelves[resource].objects.get(key)

    def objects(self, resource: GroupResource) -> Mapping[Key, JsonObject]:
        """All objects of one resource, as they are now and later."""
        return self._shelves[resource].objects

    def objects_at(self, resource: GroupResource, version: int) -> Mapping[Key, JsonObject]:
        """All objects as they were at that version; raise an Expired refusal if that is forgotten."""
        undone = dict(self._shelves[resource].objects)
        for change in reversed(self.changes(resource, version)):
            key = key_of(change.object)
            if change.previous is None:
                del undone[key]
            else:
                undone[key] = change.previous
        return undone

    def holds_uid(self, uid: str) -> bool:
        """Whether any object has this UID."""
        return uid in self._uids

    def resources(self) -> Sequence[GroupResource]:
        """Every resource that has or had objects."""
        return tuple(self._shelves)

    def put(self, resource: GroupResource, obj: JsonObject) -> JsonObject:
        """Create or replace; the object belongs to the store from now on and carries the new version."""
        shelf, key = self._shelves[resource], key_of(obj)
        previous = shelf.objects.get(key)
        shelf.objects[key] = obj
        self._uids.add(metadata(obj)["uid"])
        self._commit(resource, obj, previous, "ADDED" if previous is None else "MODIFIED")
        return obj

    def remove(self, resource: GroupResource, key: Key) -> JsonObject:
        """Delete; the last state is returned, stamped with the version of the deletion."""
        previous = self._shelves[resource].objects.pop(key)
        self._uids.discard(metadata(previous)["uid"])
        last = {**previous, "metadata": dict(metadata(previous))}
        self._commit(resource, last, previous, "DELETED")
        return last

    def changes(self, resource: GroupResource, after: int) -> Sequence[Change]:
        """What happened after that version, oldest first; raise an Expired refusal if that is forgotten."""
        shelf = self._shelves[resource]
        if after < shelf.forgotten:
            raise expired(after, shelf.forgotten)
        return shelf.changes[bisect_right(shelf.changes, after, key=lambda one: one.version) :]

    async def changed(self, resource: GroupResource) -> None:
        """Return at the resource's next change."""
        await self._shelves[resource].bell.wait()

    def compact(self) -> None:
        """Forget all history now, as etcd does every few minutes: older versions are Expired from here on."""
        for shelf in self._shelves.values():
            shelf.forget(len(shelf.changes))

    def observe(self, observer: Callable[[GroupResource, Change], None]) -> Callable[[], None]:
        """Call `observer` within each write from now on; what is returned ends that."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def _commit(
        self,
        resource: GroupResource,
        obj: JsonObject,
        previous: JsonObject | None,
        kind: Literal["ADDED", "MODIFIED", "DELETED"],
    ) -> None:
        self.version += 1
        metadata(obj)["resourceVersion"] = str(self.version)
        change = Change(version=self.version, type=kind, object=obj, previous=previous)
        self._shelves[resource].record(change, self._history)
        for observer in tuple(self._observers):
            observer(resource, change)


def key_of(obj: JsonObject) -> Key:
    """Where an object is stored."""
    return metadata(obj).get("namespace", ""), metadata(obj)["name"]
