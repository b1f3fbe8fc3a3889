"""What clients send: objects as JSON or YAML, patches in three languages, and options in queries and bodies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import yaml
from aiohttp import web

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import ServedKind
from dra_driver.sandbox.apiserver.deletion import DeleteOptions
from dra_driver.sandbox.apiserver.listing import Page, parse_number
from dra_driver.sandbox.apiserver.patches import apply_operations, merge
from dra_driver.sandbox.apiserver.resources import Target, WriteOptions
from dra_driver.sandbox.apiserver.selectors import Selection, select
from dra_driver.sandbox.apiserver.status import bad_request, unsupported_media_type
from dra_driver.sandbox.apiserver.strategic import merge_strategically

_JSON_PATCH: Final = "application/json-patch+json"
_MERGE_PATCH: Final = "application/merge-patch+json"
_DELETE_PARAMETERS: Final = ("propagationPolicy", "dryRun")
_STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"


async def read_object(request: web.Request) -> JsonObject:
    """The body, which must be one object; 400 for what cannot be read, 415 for protobuf and the like."""
    body = await _read(request)
    if not isinstance(body, dict):
        raise bad_request("the request's body is no object")
    return body


async def read_patch(
    request: web.Request, served: ServedKind
) -> Callable[[JsonObject], JsonObject]:
    """What the patch in the body does to an object; 415 for a patch language that the kind does not speak."""
    supported = [_JSON_PATCH, _MERGE_PATCH] + ([] if served.custom else [_STRATEGIC_PATCH])
    language = request.content_type
    if language not in supported:
        raise unsupported_media_type(language, supported)
    patch = await _read(request)
    if isinstance(patch, list) is not (language == _JSON_PATCH):
        raise bad_request(f"the body is no {language}")
    if isinstance(patch, list):
        return lambda present: apply_operations(present, patch)
    if language == _MERGE_PATCH:
        return lambda present: _object(merge(present, patch))
    return lambda present: merge_strategically(present, patch)


async def read_delete_options(request: web.Request) -> DeleteOptions:
    """DeleteOptions from the body, or from the query where the body says nothing."""
    body = await read_object(request) if request.can_read_body else {}
    query = request.query
    options: JsonObject = {name: query[name] for name in _DELETE_PARAMETERS if name in query}
    if "gracePeriodSeconds" in query:
        options["gracePeriodSeconds"] = parse_number(
            "gracePeriodSeconds", query["gracePeriodSeconds"]
        )
    return DeleteOptions.parse({**options, **body})


def write_options(request: web.Request) -> WriteOptions:
    """`dryRun=All` and `fieldValidation=Strict`."""
    return WriteOptions(
        dry_run=request.query.get("dryRun") == "All",
        strict=request.query.get("fieldValidation") == "Strict",
    )


def requested_selection(request: web.Request, target: Target) -> Selection:
    """`labelSelector` and `fieldSelector`, in the URL's namespace."""
    return select(
        target.served,
        target.namespace,
        labels=request.query.get("labelSelector", ""),
        fields=request.query.get("fieldSelector", ""),
    )


def requested_page(request: web.Request) -> Page:
    """`limit`, `continue` and `resourceVersion`."""
    query = request.query
    return Page.parse(
        resource_version=query.get("resourceVersion", ""),
        match=query.get("resourceVersionMatch", ""),
        limit=query.get("limit", ""),
        continuation=query.get("continue", ""),
    )


async def _read(request: web.Request) -> Any:
    language = request.content_type
    data = await request.read()
    try:
        if language == "application/yaml":
            return yaml.safe_load(data)
        if "json" in language or language == "application/octet-stream":
            return json.loads(data)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"the request's body cannot be read as {language}: {error}") from error
    raise unsupported_media_type(language, ["application/json", "application/yaml"])


def _object(patched: Any) -> JsonObject:
    if not isinstance(patched, dict):
        raise bad_request("the patched document is no object")
    return patched
