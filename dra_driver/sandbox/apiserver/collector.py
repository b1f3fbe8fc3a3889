"""Garbage collection: dependents go when their last owner is gone, and namespaces take their contents with them.

Works behind the writes, as the real controllers do: a dependent is still there for a moment after its owner went.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from typing import TypeAlias

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import NAMESPACE, GroupResource
from dra_driver.sandbox.apiserver.deletion import ORPHAN_FINALIZER
from dra_driver.sandbox.apiserver.objects import is_terminating, metadata
from dra_driver.sandbox.apiserver.patches import merge
from dra_driver.sandbox.apiserver.resources import Resources, Target
from dra_driver.sandbox.apiserver.store import Change, Key, key_of

_Place: TypeAlias = tuple[GroupResource, Key]


class Collector:
    """Collects in one store for as long as `run` runs."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._store = resources.store
        self._dependents: defaultdict[str, set[_Place]] = defaultdict(set)

    async def run(self) -> None:
        """Follow every write, without end, after catching up with what is there already."""
        changes: asyncio.Queue[tuple[GroupResource, Change]] = asyncio.Queue()
        unsubscribe = self._store.observe(lambda resource, one: changes.put_nowait((resource, one)))
        try:
            for place in tuple(self._places()):
                self._follow(place)
            while True:
                resource, change = await changes.get()
                if change.type == "DELETED":
                    self._bury((resource, key_of(change.object)), metadata(change.object))
                else:
                    self._follow((resource, key_of(change.object)))
        finally:
            unsubscribe()

    def _places(self) -> Iterator[_Place]:
        for resource in self._store.resources():
            for key in self._store.objects(resource):
                yield resource, key

    def _follow(self, place: _Place) -> None:
        """An object was written: know its owners, and do what it waits for."""
        obj = self._store.get(*place)
        if obj is None:
            return
        meta = metadata(obj)
        for owner in meta.get("ownerReferences", ()):
            self._dependents[owner["uid"]].add(place)
        self._collect(place)
        if is_terminating(obj) and ORPHAN_FINALIZER in meta.get("finalizers", ()):
            self._orphan(place, meta)
        if is_terminating(obj) and place[0] == NAMESPACE.resource:
            self._empty(meta["name"])

    def _bury(self, place: _Place, meta: JsonObject) -> None:
        """An object is gone: look after its dependents, and after the namespace that waited for it."""
        for owner in meta.get("ownerReferences", ()):
            self._dependents[owner["uid"]].discard(place)
        for dependent in self._dependents.pop(meta["uid"], ()):
            self._collect(dependent)
        name = meta.get("namespace", "")
        namespace = self._store.get(NAMESPACE.resource, ("", name))
        if namespace is not None and is_terminating(namespace):
            self._release(name)

    def _collect(self, place: _Place) -> None:
        """Delete an object whose owners are all gone; drop the references to the dead if some live."""
        obj = self._store.get(*place)
        if obj is None:
            return
        owners = metadata(obj).get("ownerReferences", [])
        living = [owner for owner in owners if self._store.holds_uid(owner["uid"])]
        if living and len(living) < len(owners):
            self._write(place, {"ownerReferences": living})
        elif owners and not living and not is_terminating(obj):
            self._delete(place)

    def _orphan(self, place: _Place, meta: JsonObject) -> None:
        """Free the dependents of an object that goes without them, then let it go."""
        for dependent in tuple(self._dependents[meta["uid"]]):
            obj = self._store.get(*dependent)
            owners = metadata(obj).get("ownerReferences", []) if obj else []
            others = [owner for owner in owners if owner["uid"] != meta["uid"]]
            if len(others) < len(owners):
                self._write(dependent, {"ownerReferences": others or None})
        left = [one for one in meta["finalizers"] if one != ORPHAN_FINALIZER]
        self._write(place, {"finalizers": left or None})

    def _empty(self, namespace: str) -> None:
        """Delete everything that a terminating namespace holds."""
        for place in [one for one in self._places() if one[1][0] == namespace]:
            obj = self._store.get(*place)
            if obj is not None and not is_terminating(obj):
                self._delete(place)
        self._release(namespace)

    def _release(self, namespace: str) -> None:
        """Let a terminating namespace go once it is empty."""
        if not any(key[0] == namespace for _, key in self._places()):
            self._resources.remove(Target(served=NAMESPACE, name=namespace))

    def _delete(self, place: _Place) -> None:
        target = self._target(place)
        if target is not None:
            self._resources.delete(target)

    def _write(self, place: _Place, meta: JsonObject) -> None:
        target = self._target(place)
        if target is not None:
            self._resources.patch(target, lambda present: merge(present, {"metadata": meta}))

    def _target(self, place: _Place) -> Target | None:
        resource, (namespace, name) = place
        served = self._resources.catalog.storing(resource)
        if served is None:  # its definition is going, and the object with it
            return None
        return Target(served=served, namespace=namespace, name=name)
