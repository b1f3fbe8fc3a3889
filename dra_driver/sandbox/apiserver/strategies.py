"""What is special about single kinds: their defaults, what they lose on the way in, and their rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import GroupResource
from dra_driver.sandbox.apiserver.objects import inside, metadata, timestamp
from dra_driver.sandbox.apiserver.validation.claim_status import (
    allocated,
    device_id,
    validate_claim_status,
)
from dra_driver.sandbox.apiserver.validation.claims import (
    validate_claim,
    validate_class,
    validate_template,
)
from dra_driver.sandbox.apiserver.validation.definitions import validate_definition
from dra_driver.sandbox.apiserver.validation.findings import Findings
from dra_driver.sandbox.apiserver.validation.pods import validate_pod
from dra_driver.sandbox.apiserver.validation.slices import validate_slice

Prepare: TypeAlias = Callable[[JsonObject, JsonObject | None], None]
"""Changes the new object in place; the old one is None at its creation."""
Validate: TypeAlias = Callable[[JsonObject, JsonObject | None, Findings], None]


def _nothing(new: JsonObject, old: JsonObject | None) -> None:
    del new, old


def _anything(new: JsonObject, old: JsonObject | None, found: Findings) -> None:
    del new, old, found


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """How one kind is treated on its way into the store; status writes have a validation of their own."""

    prepare: Prepare = _nothing
    validate: Validate = _anything
    validate_status: Callable[[JsonObject, JsonObject, Findings], None] = _anything


def strategy_of(resource: GroupResource) -> Strategy:
    """The strategy of a kind; most have nothing special."""
    return _STRATEGIES.get(str(resource), Strategy())


def _prepare_namespace(new: JsonObject, old: JsonObject | None) -> None:
    labels = metadata(new).setdefault("labels", {})
    labels["kubernetes.io/metadata.name"] = metadata(new)["name"]
    if old is None:
        new["spec"] = {"finalizers": ["kubernetes"]}
        new["status"] = {"phase": "Active"}


def _prepare_pod(new: JsonObject, old: JsonObject | None) -> None:
    spec = new.setdefault("spec", {})
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    if old is None:
        new["status"] = {"phase": "Pending", "qosClass": "BestEffort"}


def _prepare_slice(new: JsonObject, old: JsonObject | None) -> None:
    """Taints without a time got theirs now, or keep the one they had."""
    known = {}
    for device in inside(old, "spec", "devices") or ():
        for taint in device.get("taints", ()):
            identity = (device["name"], *(taint.get(field) for field in _TAINT_IDENTITY))
            known[identity] = taint.get("timeAdded")
    for device in inside(new, "spec", "devices") or ():
        for taint in device.get("taints", ()):
            if "timeAdded" not in taint:
                identity = (device.get("name"), *(taint.get(field) for field in _TAINT_IDENTITY))
                taint["timeAdded"] = known.get(identity) or timestamp()


_TAINT_IDENTITY: Final = ("key", "value", "effect")


def _prepare_claim(new: JsonObject, old: JsonObject | None) -> None:
    _count_one(inside(new, "spec"))
    new.setdefault("status", {})
    lost = allocated(old) - allocated(new)
    devices = inside(new, "status", "devices")
    if lost and devices:
        kept = [one for one in devices if device_id(one) not in lost]
        if kept:
            new["status"]["devices"] = kept
        else:
            del new["status"]["devices"]


def _prepare_template(new: JsonObject, old: JsonObject | None) -> None:
    del old
    _count_one(inside(new, "spec", "spec"))


def _count_one(spec: JsonObject | None) -> None:
    for request in device_requests(spec):
        if request["allocationMode"] == "ExactCount":
            request["count"] = request.get("count") or 1


def device_requests(spec: JsonObject | None) -> Iterator[JsonObject]:
    """Every request for devices in a claim's spec, alternatives of a prioritized list too."""
    for request in inside(spec, "devices", "requests") or ():
        if "exactly" in request:
            yield request["exactly"]
        yield from request.get("firstAvailable", ())


def _prepare_definition(new: JsonObject, old: JsonObject | None) -> None:
    spec = new.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = names.get("kind", "")
    names.setdefault("singular", kind.lower())
    names.setdefault("listKind", f"{kind}List")
    spec.setdefault("conversion", {"strategy": "None"})
    if old is None:
        now = timestamp()
        stored = [one["name"] for one in spec.get("versions", ()) if one.get("storage")]
        new["status"] = {
            "acceptedNames": names,
            "storedVersions": stored,
            "conditions": [
                {"type": condition, "status": "True", "reason": reason, "lastTransitionTime": now}
                for condition, reason in (
                    ("NamesAccepted", "NoConflicts"),
                    ("Established", "InitialNamesAccepted"),
                )
            ],
        }


_STRATEGIES: Final[Mapping[str, Strategy]] = {
    "namespaces": Strategy(prepare=_prepare_namespace),
    "pods": Strategy(prepare=_prepare_pod, validate=validate_pod),
    "resourceslices.resource.k8s.io": Strategy(prepare=_prepare_slice, validate=validate_slice),
    "resourceclaims.resource.k8s.io": Strategy(
        prepare=_prepare_claim, validate=validate_claim, validate_status=validate_claim_status
    ),
    "resourceclaimtemplates.resource.k8s.io": Strategy(
        prepare=_prepare_template, validate=validate_template
    ),
    "deviceclasses.resource.k8s.io": Strategy(validate=validate_class),
    "customresourcedefinitions.apiextensions.k8s.io": Strategy(
        prepare=_prepare_definition, validate=validate_definition
    ),
}
