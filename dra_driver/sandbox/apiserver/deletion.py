"""What a DELETE leaves behind: nothing, or an object that waits for finalizers or for its grace period."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import NAMESPACE, POD, ServedKind
from dra_driver.sandbox.apiserver.objects import copied, inside, is_terminating, metadata, timestamp
from dra_driver.sandbox.apiserver.status import Refusal, bad_request, conflict

ORPHAN_FINALIZER: Final = "orphan"
_PROPAGATIONS: Final = ("Background", "Foreground", "Orphan")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    """How to delete. Foreground deletion is treated as Background: dependents go after their owner."""

    grace_period_s: int | None = None
    uid: str | None = None
    resource_version: str | None = None
    orphan: bool = False
    dry_run: bool = False

    @classmethod
    def parse(cls, body: JsonObject) -> Self:
        """Read a request's DeleteOptions, in which query parameters may have been filled in."""
        propagation = body.get("propagationPolicy") or "Background"
        if propagation not in _PROPAGATIONS:
            raise bad_request(f"propagationPolicy {propagation!r} is none of {_PROPAGATIONS}")
        grace = body.get("gracePeriodSeconds")
        return cls(
            grace_period_s=None if grace is None else max(int(grace), 0),
            uid=inside(body, "preconditions", "uid"),
            resource_version=inside(body, "preconditions", "resourceVersion"),
            orphan=propagation == "Orphan",
            dry_run="All" in (body.get("dryRun") or ()),
        )


def check_preconditions(served: ServedKind, obj: JsonObject, options: DeleteOptions) -> None:
    """Raise a conflict if the object is not the one, or not in the state, that the client saw."""
    meta = metadata(obj)
    if options.uid is not None and options.uid != meta["uid"]:
        raise _unmet(
            served, meta, f"UID in precondition: {options.uid}, UID in object meta: ", "uid"
        )
    version = options.resource_version
    if version is not None and version != meta["resourceVersion"]:
        why = f"ResourceVersion in precondition: {version}, ResourceVersion in object meta: "
        raise _unmet(served, meta, why, "resourceVersion")


def _unmet(served: ServedKind, meta: JsonObject, why: str, field: str) -> Refusal:
    return conflict(served.resource, meta["name"], f"Precondition failed: {why}{meta[field]}")


def condemned(served: ServedKind, obj: JsonObject, options: DeleteOptions) -> JsonObject:
    """The object after the DELETE was accepted: terminating. It is `obj` itself where that changes nothing."""
    grace_s = _grace_period_s(served, obj, options)
    if is_terminating(obj) and grace_s >= metadata(obj).get("deletionGracePeriodSeconds", 0):
        return obj
    doomed = copied(obj)
    meta = metadata(doomed)
    meta["deletionTimestamp"] = timestamp(ahead_s=grace_s)
    meta["deletionGracePeriodSeconds"] = grace_s
    if served.generation:
        meta["generation"] = meta.get("generation", 0) + 1
    if options.orphan:
        meta["finalizers"] = [*meta.get("finalizers", []), ORPHAN_FINALIZER]
    if served.resource == NAMESPACE.resource:
        doomed["status"] = {**doomed.get("status", {}), "phase": "Terminating"}
    return doomed


def is_over(served: ServedKind, obj: JsonObject) -> bool:
    """Whether nothing holds a terminating object any more."""
    meta = metadata(obj)
    emptied = served.resource != NAMESPACE.resource or not inside(obj, "spec", "finalizers")
    return (
        is_terminating(obj)
        and not meta.get("finalizers")
        and not meta.get("deletionGracePeriodSeconds")
        and emptied
    )


def _grace_period_s(served: ServedKind, obj: JsonObject, options: DeleteOptions) -> int:
    """Only pods that may be running take time to go."""
    spec, phase = obj.get("spec", {}), inside(obj, "status", "phase")
    if served.resource != POD.resource or not spec.get("nodeName"):
        return 0
    if phase in {"Succeeded", "Failed"}:
        return 0
    if options.grace_period_s is not None:
        return options.grace_period_s
    grace_s: int = spec.get("terminationGracePeriodSeconds", 30)
    return grace_s
