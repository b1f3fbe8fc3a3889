"""What the benchmark's API server keeps, counts and answers; no sockets here."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dra_driver.ports import JsonObject

Watcher: TypeAlias = Callable[[bytes], None]
"""Takes a line of a watch's stream."""

_VERBS = {
    "GET": ("get", "list"),
    "POST": ("create", "create"),
    "PUT": ("replace", "replace"),
    "PATCH": ("patch", "patch"),
    "DELETE": ("delete", "deletecollection"),
}


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason

    def status(self) -> bytes:
        """The Status object that says so."""
        header = {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure"}
        detail = {"code": self.code, "reason": self.reason, "message": str(self)}
        return json.dumps(header | detail).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a request is about; `name` is empty for a collection. A dry run is a verb of its own: it writes nothing."""

    verb: str
    plural: str
    namespace: str = ""
    name: str = ""


def locate(method: str, path: str, query: Mapping[str, str]) -> Place:
    """The place that a URL means; Refusal for one that no API server serves."""
    if path == "/version":
        return Place(verb="get", plural="version", name="version")
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if len(parts) > 2 and parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    if not parts or method not in _VERBS:
        raise Refusal(404, "NotFound", f"{method} {path} is not served")
    name = parts[1] if len(parts) > 1 else ""
    verb = _VERBS[method][0 if name else 1]
    if verb == "list" and query.get("watch") in {"1", "true"}:
        verb = "watch"
    if "dryRun" in query:
        verb = f"try to {verb}"
    return Place(verb=verb, plural=parts[0], namespace=namespace, name=name)


class Storage:
    """Claims are kept as the bytes of their answer; everything else as objects by plural and name."""

    def __init__(self, node: str) -> None:
        self.outage = False
        self.watchers: set[Watcher] = set()
        self._history: list[tuple[int, bytes]] = []
        self._requests: Counter[str] = Counter()
        self._versions = itertools.count(1)
        self._last_slice_write_s = 0.0
        self._claims: dict[tuple[str, str], bytes] = {}
        self._objects: dict[str, dict[str, JsonObject]] = {}
        metadata = {"name": node, "uid": "7d1e37f0-0000-4000-8000-000000000001"}
        self._kept("nodes")[node] = {"apiVersion": "v1", "kind": "Node", "metadata": metadata}

    def count(self, place: Place) -> None:
        """Remember that this was asked."""
        self._requests[f"{place.verb} {place.plural}"] += 1

    def report(self) -> JsonObject:
        """Requests so far, the slices, and when (CLOCK_MONOTONIC) the last of them was written."""
        return {
            "requests": dict(self._requests),
            "slices": list(self._kept("resourceslices").values()),
            "last_slice_write_s": self._last_slice_write_s,
        }

    def add_claims(self, claims: Sequence[JsonObject]) -> None:
        """Claims as somebody else created and allocated them."""
        for claim in claims:
            metadata = claim["metadata"]
            self._claims[metadata["namespace"], metadata["name"]] = json.dumps(claim).encode()

    def watch(self, place: Place, query: Mapping[str, str], watcher: Watcher) -> None:
        """Have it told of slices, first of what happened since the query's version; nothing else ever changes."""
        if place.plural == "resourceslices":
            since = int(query.get("resourceVersion") or 0)
            for version, line in self._history:
                if version > since:
                    watcher(line)
            self.watchers.add(watcher)

    def answer(self, place: Place, query: Mapping[str, str], body: bytes) -> bytes:
        """The body of a successful answer; Refusal otherwise."""
        if place.plural == "resourceclaims" and place.verb == "get":
            found = self._claims.get((place.namespace, place.name))
            if found is None:
                raise Refusal(404, "NotFound", f'resourceclaims "{place.name}" not found')
            return found
        if place.plural == "version":
            return b'{"major": "1", "minor": "37", "gitVersion": "v1.37.1"}'
        return json.dumps(self._handle(place, query, body)).encode()

    def _handle(self, place: Place, query: Mapping[str, str], body: bytes) -> JsonObject:
        match place.verb:
            case "list":
                answer = self._listing(place, query)
            case "try to create":
                answer = self._named(json.loads(body))
            case "create":
                answer = self._create(place, json.loads(body))
            case "replace":
                answer = self._replace(place, json.loads(body))
            case "get":
                answer = self._found(place)
            case "delete":
                self._found(place)
                answer = self._remove(place.plural, [place.name])
            case "deletecollection":
                answer = self._remove(place.plural, list(self._kept(place.plural)))
            case _:
                raise Refusal(405, "MethodNotAllowed", f"{place.verb} {place.plural} is not served")
        return answer

    def _kept(self, plural: str) -> dict[str, JsonObject]:
        return self._objects.setdefault(plural, {})

    def _found(self, place: Place) -> JsonObject:
        found = self._kept(place.plural).get(place.name)
        if found is None:
            raise Refusal(404, "NotFound", f'{place.plural} "{place.name}" not found')
        return found

    def _listing(self, place: Place, query: Mapping[str, str]) -> JsonObject:
        if "sendInitialEvents" in query:
            raise Refusal(422, "Invalid", "sendInitialEvents: Forbidden: lists are not streamed")
        items = list(self._kept(place.plural).values())
        if place.plural == "resourceclaims":
            items = [json.loads(claim) for claim in self._claims.values()]
        for selector in filter(None, query.get("fieldSelector", "").split(",")):
            field, value = selector.split("=", 1)
            items = [item for item in items if _field(item, field) == value]
        metadata = {"resourceVersion": str(next(self._versions))}
        return {"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}

    def _named(self, item: JsonObject) -> JsonObject:
        """The object with all that the server adds to a new one."""
        metadata, number = item["metadata"], next(self._versions)
        metadata.setdefault("name", f"{metadata.get('generateName', '')}{number}")
        metadata["uid"] = f"7d1e37f0-0000-4000-8001-{number:012d}"
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
        metadata["resourceVersion"], metadata["generation"] = str(number), 1
        return item

    def _create(self, place: Place, item: JsonObject) -> JsonObject:
        name = self._named(item)["metadata"]["name"]
        if name in self._kept(place.plural):
            raise Refusal(409, "AlreadyExists", f'{place.plural} "{name}" already exists')
        return self._store(place.plural, "ADDED", item)

    def _replace(self, place: Place, item: JsonObject) -> JsonObject:
        stored, metadata = self._found(place)["metadata"], item["metadata"]
        if metadata.get("resourceVersion", "") not in {"", stored["resourceVersion"]}:
            raise Refusal(409, "Conflict", f"{place.name}: the object has been modified")
        for name in ("uid", "creationTimestamp"):
            metadata[name] = stored[name]
        metadata["resourceVersion"] = str(next(self._versions))
        return self._store(place.plural, "MODIFIED", item)

    def _remove(self, plural: str, names: Sequence[str]) -> JsonObject:
        for name in names:
            item = self._kept(plural).pop(name)
            item["metadata"]["resourceVersion"] = str(next(self._versions))
            self._tell(plural, "DELETED", item)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _store(self, plural: str, kind: str, item: JsonObject) -> JsonObject:
        self._kept(plural)[item["metadata"]["name"]] = item
        self._tell(plural, kind, item)
        return item

    def _tell(self, plural: str, kind: str, item: JsonObject) -> None:
        if plural == "resourceslices":
            self._last_slice_write_s = time.monotonic()
            line = json.dumps({"type": kind, "object": item}).encode() + b"\n"
            self._history.append((int(item["metadata"]["resourceVersion"]), line))
            for watcher in self.watchers:
                watcher(line)


def _field(item: JsonObject, path: str) -> object:
    found: object = item
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found
