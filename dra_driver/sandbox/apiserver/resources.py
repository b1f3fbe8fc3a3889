"""The verbs: what can be done to stored objects, whoever asks. HTTP and `LocalApi` are two ways to call this.

Each method is atomic, raises a `Refusal` where the real server would refuse, and returns stored objects, which callers
must not change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.admission import admit
from dra_driver.sandbox.apiserver.catalog import (
    CUSTOM_RESOURCE_DEFINITION,
    NAMESPACE,
    Catalog,
    GroupResource,
    ServedKind,
    custom_kinds,
)
from dra_driver.sandbox.apiserver.decoding import decode
from dra_driver.sandbox.apiserver.deletion import (
    DeleteOptions,
    check_preconditions,
    condemned,
    is_over,
)
from dra_driver.sandbox.apiserver.gates import Gates
from dra_driver.sandbox.apiserver.naming import generated_name, stamp_new, stamp_successor
from dra_driver.sandbox.apiserver.objects import copied, metadata, timestamp
from dra_driver.sandbox.apiserver.selectors import Selection
from dra_driver.sandbox.apiserver.status import (
    Cause,
    already_exists,
    bad_request,
    conflict,
    invalid,
    modified,
    not_found,
)
from dra_driver.sandbox.apiserver.store import Key, Store
from dra_driver.sandbox.apiserver.strategies import strategy_of
from dra_driver.sandbox.apiserver.validation.findings import Findings
from dra_driver.sandbox.apiserver.validation.metadata import validate_metadata

_FIRST_NAMESPACES: Final = ("default", "kube-system")
_NAME_ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a request is about; the name is empty for collections, the subresource is `status` or empty."""

    served: ServedKind
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def resource(self) -> GroupResource:
        """The kind's place in the store."""
        return self.served.resource

    @property
    def key(self) -> Key:
        """The object's place in the store."""
        return self.namespace, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """`dry_run`: answer as if, and change nothing. `strict`: refuse unknown fields instead of dropping them."""

    dry_run: bool = False
    strict: bool = False


_WRITE: Final = WriteOptions()


class Resources:
    """All verbs on one store. Namespaces `default` and `kube-system` are there from the start."""

    def __init__(self, store: Store, gates: Gates | None = None) -> None:
        self.store = store
        self.catalog = Catalog(store)
        self._gates = gates or Gates()
        for name in _FIRST_NAMESPACES:
            if store.get(NAMESPACE.resource, ("", name)) is None:
                self.create(Target(served=NAMESPACE), {"metadata": {"name": name}})

    def get(self, target: Target) -> JsonObject:
        """One object."""
        obj = self.store.get(target.resource, target.key)
        if obj is None:
            raise not_found(target.resource, target.name)
        return obj

    def create(
        self, target: Target, body: JsonObject, options: WriteOptions = _WRITE
    ) -> JsonObject:
        """Store a new object under its own or a generated name."""
        new = self._decode(target, body, options)
        if metadata(new).get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        stamp_new(target.served, new)
        self._name(target, new)
        if target.served.status:
            new.pop("status", None)
        self._gates.apply(target.resource, new, None)
        strategy_of(target.resource).prepare(new, None)
        self._validate(target, new, None)
        target = replace(target, name=metadata(new)["name"])
        if self.store.get(target.resource, target.key) is not None:
            raise already_exists(target.resource, target.name)
        return new if options.dry_run else self.store.put(target.resource, new)

    def update(
        self, target: Target, body: JsonObject, options: WriteOptions = _WRITE
    ) -> JsonObject:
        """Replace an object, or only its status; the body's resourceVersion and uid, if any, must be current."""
        old = self.get(target)
        new = self._decode(target, body, options)
        self._fence(target, metadata(new), metadata(old))
        if target.subresource == "status":
            new = {**copied(old), "status": new.get("status", {})}
        elif target.served.status:
            new.pop("status", None)
            new.update({"status": copied(old["status"])} if "status" in old else {})
        self._gates.apply(target.resource, new, old)
        strategy_of(target.resource).prepare(new, old)
        stamp_successor(target.served, new, old)
        self._validate(target, new, old)
        if new == old or options.dry_run:
            return new
        if is_over(target.served, new):
            return self.remove(target)
        return self.store.put(target.resource, new)

    def patch(
        self,
        target: Target,
        change: Callable[[JsonObject], JsonObject],
        options: WriteOptions = _WRITE,
    ) -> JsonObject:
        """Update an object by what `change` makes of it; a resourceVersion that it sets fences the write."""
        return self.update(target, change(self.get(target)), options)

    def delete(self, target: Target, options: DeleteOptions | None = None) -> JsonObject | None:
        """Delete an object: it is gone (None), or terminating and returned."""
        options = options or DeleteOptions()
        obj = self.get(target)
        check_preconditions(target.served, obj, options)
        doomed = condemned(target.served, obj, options)
        over = is_over(target.served, doomed)
        if options.dry_run:
            return None if over else doomed
        if over:
            self.remove(target)
            return None
        return doomed if doomed is obj else self.store.put(target.resource, doomed)

    def delete_collection(
        self, served: ServedKind, selection: Selection, options: DeleteOptions
    ) -> None:
        """Delete all selected objects."""
        for (namespace, name), obj in sorted(self.store.objects(served.resource).items()):
            if selection.admits(obj):
                self.delete(Target(served=served, namespace=namespace, name=name), options)

    def remove(self, target: Target) -> JsonObject:
        """Take an object out of the store, whatever holds it; with a definition go all objects that it defines."""
        last = self.store.remove(target.resource, target.key)
        if target.resource == CUSTOM_RESOURCE_DEFINITION.resource:
            for resource in {served.resource for served in custom_kinds(last)}:
                for key in tuple(self.store.objects(resource)):
                    self.store.remove(resource, key)
        return last

    def bind(self, target: Target, node: str) -> None:
        """Put a pod on a node, once: what a POST to `pods/binding` does."""
        pod = copied(self.get(target))
        bound = pod["spec"].get("nodeName")
        if bound or "deletionTimestamp" in metadata(pod):
            state = f'already assigned to node "{bound}"' if bound else "being deleted"
            raise conflict("pods/binding", target.name, f"pod {target.name} is {state}")
        pod["spec"]["nodeName"] = node
        conditions = pod["status"].setdefault("conditions", [])
        conditions[:] = [one for one in conditions if one["type"] != "PodScheduled"]
        conditions.append(
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": timestamp()}
        )
        self.store.put(target.resource, pod)

    def _decode(self, target: Target, body: JsonObject, options: WriteOptions) -> JsonObject:
        """The body in its kind's shape, agreeing with the URL about what it is."""
        kind = target.served.kind
        new = decode(target.served, body, strict=options.strict)
        given = (new.get("apiVersion", kind.api_version), new.get("kind", kind.kind))
        if given != (kind.api_version, kind.kind):
            raise bad_request(
                f"the object provided ({given[0]}, Kind={given[1]}) does not match "
                f"what is served here ({kind.api_version}, Kind={kind.kind})"
            )
        new |= {"apiVersion": kind.api_version, "kind": kind.kind}
        meta = metadata(new)
        if kind.namespaced and meta.setdefault("namespace", target.namespace) != target.namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        if not kind.namespaced:
            meta.pop("namespace", None)
        if target.name and meta.setdefault("name", target.name) != target.name:
            raise bad_request(
                f"the name of the object ({meta['name']}) does not match the name on the URL ({target.name})"
            )
        return new

    def _name(self, target: Target, new: JsonObject) -> None:
        meta = metadata(new)
        base = meta.get("generateName")
        if meta.get("name") or not base:
            return
        for _ in range(_NAME_ATTEMPTS):
            meta["name"] = generated_name(base)
            if self.store.get(target.resource, (target.namespace, meta["name"])) is None:
                return

    def _fence(self, target: Target, meta: JsonObject, current: JsonObject) -> None:
        if meta.get("uid", current["uid"]) != current["uid"]:
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {current['uid']}"
            raise conflict(target.resource, target.name, why)
        version = meta.get("resourceVersion")
        if not version and not target.served.unconditional:
            message = "Invalid value: 0: must be specified for an update"
            field = "metadata.resourceVersion"
            cause = Cause(field=field, reason="FieldValueInvalid", message=message)
            raise invalid(target.served, target.name, [cause])
        if version and version != current["resourceVersion"]:
            raise modified(target.resource, target.name)

    def _validate(self, target: Target, new: JsonObject, old: JsonObject | None) -> None:
        found = Findings()
        name = metadata(new).get("name", "")
        if old is None:
            namespace = self.store.get(NAMESPACE.resource, ("", target.namespace))
            admit(target.served, new, namespace, found)
        validate_metadata(target.served, new, old, found)
        strategy = strategy_of(target.resource)
        if old is not None and target.subresource == "status":
            strategy.validate_status(new, old, found)
        else:
            strategy.validate(new, old, found)
        if found.causes:
            raise invalid(target.served, name, found.causes)
