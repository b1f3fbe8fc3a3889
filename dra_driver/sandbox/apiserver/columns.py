"""What `kubectl get` shows of each kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import Column, ServedKind
from dra_driver.sandbox.apiserver.objects import inside, is_terminating, metadata

Read: TypeAlias = Callable[[JsonObject], Any]

_FILTER: Final = re.compile(
    r"(?P<list>[\w.]+)\[\?\(@\.type\s*==\s*['\"](?P<type>[^'\"]+)['\"]\)\]\.(?P<field>\w+)"
)
_ROLE: Final = "node-role.kubernetes.io/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """One column: what it is called, and what it shows of an object. Priority above 0: only with `-o wide`."""

    name: str
    read: Read
    type: str = "string"
    priority: int = 0


def columns_of(served: ServedKind) -> Sequence[Printed]:
    """The kind's columns; a kind without any of its own shows name and age."""
    if served.custom and served.columns:
        return (_NAME, *map(_defined, served.columns))
    return _COLUMNS.get(str(served.resource), (_NAME, _AGE))


def duration(seconds: float) -> str:
    """How long, to the digits that matter: 5s, 3m20s, 12m, 5h, 3d."""
    whole = max(int(seconds), 0)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10 and whole % 60:
        return f"{minutes}m{whole % 60}s"
    if hours < 3:
        return f"{minutes}m"
    return f"{hours}h" if days < 2 else f"{days}d"


def _since(moment: str | None) -> str:
    if not moment:
        return "<unknown>"
    age = datetime.now(UTC) - datetime.fromisoformat(moment)
    return duration(age.total_seconds())


def _age(obj: JsonObject) -> str:
    return _since(metadata(obj).get("creationTimestamp"))


def _at(*path: str, missing: str = "") -> Read:
    def read(obj: JsonObject) -> Any:
        found = inside(obj, *path)
        return missing if found is None else found

    return read


def _defined(column: Column) -> Printed:
    """A column of a definition. Of jsonPath: plain paths, and lists filtered by type, as conditions are read."""
    path = column.path.lstrip(".")
    match = _FILTER.fullmatch(path)
    read = _at(*path.split(".")) if match is None else _filtered(match)
    if column.type == "date":
        return Printed(
            name=column.name, read=lambda obj: _since(read(obj)), priority=column.priority
        )
    return Printed(name=column.name, read=read, type=column.type, priority=column.priority)


def _filtered(match: re.Match[str]) -> Read:
    items = _at(*match["list"].split("."))

    def read(obj: JsonObject) -> Any:
        for one in items(obj) or ():
            if one.get("type") == match["type"]:
                return one.get(match["field"], "")
        return ""

    return read


def _container_statuses(pod: JsonObject) -> Sequence[JsonObject]:
    statuses: Sequence[JsonObject] = inside(pod, "status", "containerStatuses") or ()
    return statuses


def _ready(pod: JsonObject) -> str:
    ready = sum(bool(one.get("ready")) for one in _container_statuses(pod))
    return f"{ready}/{len(inside(pod, 'spec', 'containers') or ())}"


def _restarts(pod: JsonObject) -> int:
    return sum(one.get("restartCount", 0) for one in _container_statuses(pod))


def _pod_state(pod: JsonObject) -> str:
    """The most telling word: terminating, why a container waits or ended, or the phase."""
    if is_terminating(pod):
        return "Terminating"
    states = [one.get("state", {}) for one in _container_statuses(pod)]
    reasons = [inside(one, kind, "reason") for one in states for kind in ("waiting", "terminated")]
    named = next(filter(None, reasons), None)
    return str(named or inside(pod, "status", "reason") or inside(pod, "status", "phase") or "")


def _claim_state(claim: JsonObject) -> str:
    states = ["deleted"] if is_terminating(claim) else []
    states.append("pending" if inside(claim, "status", "allocation") is None else "allocated")
    if inside(claim, "status", "reservedFor"):
        states.append("reserved")
    return ",".join(states)


def _node_state(node: JsonObject) -> str:
    conditions = inside(node, "status", "conditions") or ()
    ready = next((one["status"] for one in conditions if one["type"] == "Ready"), "Unknown")
    state = {"True": "Ready", "False": "NotReady"}.get(ready, "Unknown")
    return state + (",SchedulingDisabled" if inside(node, "spec", "unschedulable") else "")


def _node_roles(node: JsonObject) -> str:
    labels = metadata(node).get("labels", {})
    return (
        ",".join(sorted(one[len(_ROLE) :] for one in labels if one.startswith(_ROLE))) or "<none>"
    )


def _last_seen(event: JsonObject) -> str:
    return _since(event.get("lastTimestamp") or event.get("eventTime")) if event else ""


def _event_object(event: JsonObject) -> str:
    involved = event.get("involvedObject", {})
    return f"{involved.get('kind', '').lower()}/{involved.get('name', '')}"


_NAME: Final = Printed(name="Name", read=_at("metadata", "name"))
_AGE: Final = Printed(name="Age", read=_age)
_COLUMNS: Final[Mapping[str, tuple[Printed, ...]]] = {
    "pods": (
        _NAME,
        Printed(name="Ready", read=_ready),
        Printed(name="Status", read=_pod_state),
        Printed(name="Restarts", read=_restarts, type="integer"),
        _AGE,
        Printed(name="Node", read=_at("spec", "nodeName", missing="<none>"), priority=1),
    ),
    "namespaces": (_NAME, Printed(name="Status", read=_at("status", "phase")), _AGE),
    "nodes": (
        _NAME,
        Printed(name="Status", read=_node_state),
        Printed(name="Roles", read=_node_roles),
        _AGE,
        Printed(name="Version", read=_at("status", "nodeInfo", "kubeletVersion")),
    ),
    "events": (
        Printed(name="Last Seen", read=_last_seen),
        Printed(name="Type", read=_at("type")),
        Printed(name="Reason", read=_at("reason")),
        Printed(name="Object", read=_event_object),
        Printed(name="Message", read=_at("message")),
    ),
    "leases.coordination.k8s.io": (
        _NAME,
        Printed(name="Holder", read=_at("spec", "holderIdentity")),
        _AGE,
    ),
    "resourceclaims.resource.k8s.io": (_NAME, Printed(name="State", read=_claim_state), _AGE),
    "resourceslices.resource.k8s.io": (
        _NAME,
        Printed(name="Node", read=_at("spec", "nodeName", missing="<none>")),
        Printed(name="Driver", read=_at("spec", "driver")),
        Printed(name="Pool", read=_at("spec", "pool", "name")),
        _AGE,
    ),
    "customresourcedefinitions.apiextensions.k8s.io": (
        _NAME,
        Printed(name="Created At", read=_at("metadata", "creationTimestamp"), type="date"),
    ),
}
