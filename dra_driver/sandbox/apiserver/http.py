"""The HTTP side: methods, answers, streams. What requests mean is in `resources`."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final, TypeAlias

from aiohttp import web

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver import discovery
from dra_driver.sandbox.apiserver.bodies import (
    read_delete_options,
    read_object,
    read_patch,
    requested_page,
    requested_selection,
    write_options,
)
from dra_driver.sandbox.apiserver.listing import list_objects, parse_number
from dra_driver.sandbox.apiserver.objects import inside, metadata
from dra_driver.sandbox.apiserver.resources import Resources, Target
from dra_driver.sandbox.apiserver.status import (
    Refusal,
    bad_request,
    method_not_allowed,
    success,
    unknown_path,
)
from dra_driver.sandbox.apiserver.tables import render_table
from dra_driver.sandbox.apiserver.urls import target_of
from dra_driver.sandbox.apiserver.watching import Event, Watch, watch_events

_LARGEST_BODY_BYTES: Final = 3 * 2**20
_HEALTH: Final = frozenset({"/healthz", "/readyz", "/livez"})
_TABLE: Final = re.compile(r"as=Table")
_NAMED: Final = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_COLLECTION: Final = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
_Answer: TypeAlias = Callable[[web.Request, Target], Awaitable[web.StreamResponse]]


class HttpApi:
    """Answers HTTP requests from one `Resources`; `requests` counts them by (verb, plural)."""

    def __init__(self, resources: Resources, *, version: str, bookmark_period_s: float) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self._resources = resources
        self._version = version
        self._bookmark_period_s = bookmark_period_s
        self._deadlines: set[asyncio.Timeout] = set()
        self._answers: dict[str, _Answer] = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }

    def application(self) -> web.Application:
        """What aiohttp serves; when that shuts down, all watches end at once and in good order."""
        application = web.Application(client_max_size=_LARGEST_BODY_BYTES)
        application.router.add_route("*", "/{path:.*}", self._answer)
        application.on_shutdown.append(self._end_watches)
        return application

    async def _end_watches(self, application: web.Application) -> None:
        del application
        for deadline in self._deadlines:
            deadline.reschedule(asyncio.get_running_loop().time())

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            if request.path in _HEALTH:
                return web.Response(text="ok")
            catalog = self._resources.catalog
            document = discovery.document(catalog, self._version, request.path)
            if document is not None:
                return _json(document)
            target = target_of(catalog, request.path)
            verb = _verb(request, target)
            self.requests[verb, target.resource.plural] += 1
            return await self._answers[verb](request, target)
        except Refusal as refusal:
            return _json(refusal.body(), status=refusal.code)

    async def _get(self, request: web.Request, target: Target) -> web.StreamResponse:
        return _json(_shown(request, target, self._resources.get(target)))

    async def _list(self, request: web.Request, target: Target) -> web.StreamResponse:
        selection, page = requested_selection(request, target), requested_page(request)
        listed = list_objects(self._resources.store, target.served, selection, page)
        return _json(_shown(request, target, listed))

    async def _create(self, request: web.Request, target: Target) -> web.StreamResponse:
        body = await read_object(request)
        if target.subresource == "binding":
            self._resources.bind(target, inside(body, "target", "name") or "")
            return _json(success(target.resource, target.name), status=201)
        created = self._resources.create(target, body, write_options(request))
        return _json(_shown(request, target, created), status=201)

    async def _update(self, request: web.Request, target: Target) -> web.StreamResponse:
        body = await read_object(request)
        return _json(
            _shown(request, target, self._resources.update(target, body, write_options(request)))
        )

    async def _patch(self, request: web.Request, target: Target) -> web.StreamResponse:
        change = await read_patch(request, target.served)
        return _json(
            _shown(request, target, self._resources.patch(target, change, write_options(request)))
        )

    async def _delete(self, request: web.Request, target: Target) -> web.StreamResponse:
        options = await read_delete_options(request)
        uid = metadata(self._resources.get(target))["uid"]
        left = self._resources.delete(target, options)
        return _json(success(target.resource, target.name, uid) if left is None else left)

    async def _delete_collection(self, request: web.Request, target: Target) -> web.StreamResponse:
        selection = requested_selection(request, target)
        options = await read_delete_options(request)
        self._resources.delete_collection(target.served, selection, options)
        return _json(success(target.resource, ""))

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        watch = self._requested_watch(request, target)
        timeout_s = parse_number("timeoutSeconds", request.query.get("timeoutSeconds", "")) or None
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        events = watch_events(self._resources.store, watch)
        try:
            async with asyncio.timeout(timeout_s) as deadline, aclosing(events):
                self._deadlines.add(deadline)
                async for event in events:
                    await response.write(_line(request, target, event))
        except TimeoutError:
            pass  # how a watch normally ends
        finally:
            self._deadlines.discard(deadline)
        await response.write_eof()
        return response

    def _requested_watch(self, request: web.Request, target: Target) -> Watch:
        query = request.query
        bookmarks = query.get("allowWatchBookmarks") in {"true", "1"}
        initial = query.get("sendInitialEvents") == "true"
        if initial and query.get("resourceVersionMatch") != "NotOlderThan":
            raise bad_request("sendInitialEvents requires resourceVersionMatch=NotOlderThan")
        return Watch(
            served=target.served,
            selection=requested_selection(request, target),
            version=0
            if initial
            else parse_number("resourceVersion", query.get("resourceVersion", "")),
            bookmark_period_s=self._bookmark_period_s if bookmarks else None,
            initial_bookmark=initial and bookmarks,
        )


def _verb(request: web.Request, target: Target) -> str:
    """What the method means here; 405 for methods that mean nothing."""
    if request.method == "GET" and not target.name and request.query.get("watch") in {"true", "1"}:
        return "watch"
    if target.subresource == "binding":
        verbs = {"POST": "create"}
    else:
        verbs = _NAMED if target.name else _COLLECTION
    verb = verbs.get(request.method)
    if verb is None or (target.subresource and verb == "delete"):
        raise method_not_allowed(request.method)
    if verb == "create" and target.served.kind.namespaced and not target.namespace:
        raise unknown_path()
    return verb


def _shown(request: web.Request, target: Target, answer: JsonObject) -> JsonObject:
    """The answer in the form that the client accepts first: itself, or a Table."""
    if _TABLE.search(request.headers.get("Accept", "")) is None:
        return answer
    return render_table(target.served, answer, request.query.get("includeObject", "Metadata"))


def _line(request: web.Request, target: Target, event: Event) -> bytes:
    if event["type"] in {"ADDED", "MODIFIED", "DELETED"}:
        event = {**event, "object": _shown(request, target, event["object"])}
    return _encoded(event) + b"\n"


def _json(body: JsonObject, *, status: int = 200) -> web.Response:
    return web.Response(body=_encoded(body), status=status, content_type="application/json")


def _encoded(body: JsonObject) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
