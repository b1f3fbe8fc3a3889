"""What a ResourceClaim, a ResourceClaimTemplate and a DeviceClass may ask for. CEL is not compiled here."""

from __future__ import annotations

import json
from typing import Final

from dra_driver.model.names import is_dns_label, is_dns_subdomain, is_qualified_name
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.validation.findings import DNS_LABEL, DNS_SUBDOMAIN, Findings
from dra_driver.sandbox.apiserver.validation.metadata import QUALIFIED_NAME, is_label_key
from dra_driver.sandbox.apiserver.validation.slices import ATTRIBUTE_NAME, EFFECTS, is_driver_name

_REQUESTS: Final = 32
_FIRST_AVAILABLE: Final = 8
_SELECTORS: Final = 32
_EXPRESSION_BYTES: Final = 10 * 1024
_TOLERATIONS: Final = 16
_CONSTRAINTS: Final = 32
_CONFIGS: Final = 32
_PARAMETERS_BYTES: Final = 10 * 1024
_MODES: Final = ("All", "ExactCount")
_UNKNOWN_REQUEST: Final = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"


def validate_claim(new: JsonObject, old: JsonObject | None, found: Findings) -> None:
    """The spec; it never changes."""
    if old is not None and new.get("spec") != old.get("spec"):
        found.immutable("spec", new.get("spec"))
    validate_spec("spec", new.get("spec", {}), found)


def validate_template(new: JsonObject, old: JsonObject | None, found: Findings) -> None:
    """The claims to be; a template never changes."""
    if old is not None and new.get("spec") != old.get("spec"):
        found.immutable("spec", new.get("spec"))
    validate_spec("spec.spec", new.get("spec", {}).get("spec", {}), found)


def validate_class(new: JsonObject, old: JsonObject | None, found: Findings) -> None:
    """Selectors and config; classes may change."""
    del old
    spec = new.get("spec", {})
    _validate_selectors("spec", spec, found)
    found.bound("spec.config", spec.get("config", []), _CONFIGS)
    for index, config in enumerate(spec.get("config", [])):
        _validate_opaque(f"spec.config[{index}]", config, found)


def validate_spec(path: str, spec: JsonObject, found: Findings) -> None:
    """Requests, constraints and config of a claim."""
    devices = spec.get("devices", {})
    requests = devices.get("requests", [])
    found.bound(f"{path}.devices.requests", requests, _REQUESTS)
    found.unique(f"{path}.devices.requests", [one.get("name", "") for one in requests])
    for index, request in enumerate(requests):
        _validate_request(f"{path}.devices.requests[{index}]", request, found)
    known = _request_names(requests)
    constraints, configs = devices.get("constraints", []), devices.get("config", [])
    found.bound(f"{path}.devices.constraints", constraints, _CONSTRAINTS)
    for index, constraint in enumerate(constraints):
        here = f"{path}.devices.constraints[{index}]"
        _validate_references(here, constraint, known, found)
        _validate_constraint(here, constraint, found)
    found.bound(f"{path}.devices.config", configs, _CONFIGS)
    for index, config in enumerate(configs):
        here = f"{path}.devices.config[{index}]"
        _validate_references(here, config, known, found)
        _validate_opaque(here, config, found)


def _request_names(requests: list[JsonObject]) -> frozenset[str]:
    names = {one.get("name", "") for one in requests}
    for one in requests:
        for option in one.get("firstAvailable", []):
            names.add(f"{one.get('name', '')}/{option.get('name', '')}")
    return frozenset(names)


def _validate_request(path: str, request: JsonObject, found: Findings) -> None:
    found.check(f"{path}.name", request.get("name", ""), is_dns_label, DNS_LABEL)
    options = request.get("firstAvailable", [])
    if options and "exactly" in request:
        why = (
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"
        )
        found.invalid(path, "{`exactly`, `firstAvailable`}", why)
    elif not options and "exactly" not in request:
        found.required(path, "exactly one of `exactly` or `firstAvailable` is required")
    if "exactly" in request:
        _validate_device_request(f"{path}.exactly", request["exactly"], found)
    here = f"{path}.firstAvailable"
    found.bound(here, options, _FIRST_AVAILABLE)
    found.unique(here, [one.get("name", "") for one in options])
    for index, option in enumerate(options):
        found.check(f"{here}[{index}].name", option.get("name", ""), is_dns_label, DNS_LABEL)
        _validate_device_request(f"{here}[{index}]", option, found)


def _validate_device_request(path: str, request: JsonObject, found: Findings) -> None:
    name = request.get("deviceClassName", "")
    found.check(f"{path}.deviceClassName", name, is_dns_subdomain, DNS_SUBDOMAIN)
    mode, count = request.get("allocationMode"), request.get("count", 0)
    if mode == "ExactCount" and count <= 0:
        found.invalid(f"{path}.count", count, "must be greater than zero")
    elif mode == "All" and count:
        found.invalid(f"{path}.count", count, "must not be specified when allocationMode is 'All'")
    elif mode not in _MODES:
        found.unsupported(f"{path}.allocationMode", mode, _MODES)
    _validate_selectors(path, request, found)
    _validate_tolerations(f"{path}.tolerations", request.get("tolerations", []), found)


def _validate_selectors(path: str, holder: JsonObject, found: Findings) -> None:
    selectors = holder.get("selectors", [])
    found.bound(f"{path}.selectors", selectors, _SELECTORS)
    for index, selector in enumerate(selectors):
        here = f"{path}.selectors[{index}].cel"
        if "cel" not in selector:
            found.required(here)
        elif not selector["cel"].get("expression"):
            found.required(f"{here}.expression")
        else:
            found.bound(f"{here}.expression", selector["cel"]["expression"], _EXPRESSION_BYTES)


def _validate_tolerations(path: str, tolerations: list[JsonObject], found: Findings) -> None:
    found.bound(path, tolerations, _TOLERATIONS)
    for index, one in enumerate(tolerations):
        here = f"{path}[{index}]"
        key, operator = one.get("key", ""), one.get("operator")
        if key:
            found.check(f"{here}.key", key, is_label_key, QUALIFIED_NAME)
        elif operator != "Exists":
            found.invalid(
                f"{here}.operator", operator, "operator must be Exists when `key` is empty"
            )
        if operator not in {"Exists", "Equal"}:
            found.unsupported(f"{here}.operator", operator, ("Equal", "Exists"))
        elif operator == "Exists" and one.get("value"):
            found.invalid(f"{here}.value", one["value"], "must be empty for operator `Exists`")
        if one.get("effect") and one["effect"] not in EFFECTS:
            found.unsupported(f"{here}.effect", one["effect"], EFFECTS)


def _validate_constraint(path: str, constraint: JsonObject, found: Findings) -> None:
    chosen = [name for name in ("matchAttribute", "distinctAttribute") if constraint.get(name)]
    if not chosen:
        why = "exactly one of `matchAttribute`, `distinctAttribute` is required"
        found.required(path, why)
    elif len(chosen) > 1:
        why = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
        found.required(path, why)
    for name in chosen:
        value = constraint[name]
        found.check(f"{path}.{name}", value, is_qualified_name, ATTRIBUTE_NAME)
        if "/" not in value:
            found.invalid(
                f"{path}.{name}",
                value,
                "a fully qualified name must be a domain and a name separated by a slash",
            )


def _validate_references(
    path: str, holder: JsonObject, known: frozenset[str], found: Findings
) -> None:
    names = holder.get("requests", [])
    found.bound(f"{path}.requests", names, _REQUESTS)
    found.unique(f"{path}.requests", names)
    for index, name in enumerate(names):
        if name not in known:
            found.invalid(f"{path}.requests[{index}]", name, _UNKNOWN_REQUEST)


def _validate_opaque(path: str, config: JsonObject, found: Findings) -> None:
    if "opaque" not in config:
        found.required(f"{path}.opaque")
        return
    opaque = config["opaque"]
    driver = opaque.get("driver", "")
    found.check(f"{path}.opaque.driver", driver, is_driver_name, DNS_SUBDOMAIN)
    found.bound(f"{path}.opaque.driver", driver, 63)
    if "parameters" not in opaque:
        found.required(f"{path}.opaque.parameters")
    elif not isinstance(opaque["parameters"], dict):
        found.invalid(f"{path}.opaque.parameters", "<value omitted>", "must be a valid JSON object")
    else:
        text = json.dumps(opaque["parameters"], separators=(",", ":"), ensure_ascii=False)
        found.bound(f"{path}.opaque.parameters", text, _PARAMETERS_BYTES)
