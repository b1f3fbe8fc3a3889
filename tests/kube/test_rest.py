"""RestApi's requests and answers, against a real HTTP server. Broken connections: test_transport.py."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from dra_driver.kube.endpoint import Endpoint
from dra_driver.kube.rest import RestApi
from dra_driver.model.errors import (
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    NameInvalid,
    NotFound,
    Unavailable,
)
from dra_driver.model.kinds import DEVICE_CLASS, NODE, POD, RESOURCE_CLAIM, RESOURCE_SLICE
from dra_driver.ports import KubeApi, WatchEvent

Serve = Callable[..., Awaitable[str]]


def rest(url: str) -> RestApi:
    return RestApi(Endpoint(server=url), component="test")


class Echo:
    """Remembers each request and answers 200 with an object."""

    def __init__(self, answer: dict[str, Any] | None = None) -> None:
        self.answer = answer or {"metadata": {"name": "x"}}
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections: set[Any] = set()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.connections.add(request.transport)
        self.headers.append(dict(request.headers))
        self.seen.append(
            (request.method, request.path, dict(request.query), json.loads(text) if text else None)
        )
        return web.json_response(self.answer)


async def test_requests_are_what_the_api_server_expects(serve: Serve) -> None:
    """Verb, path, query and body of every kind of request, for core and grouped, namespaced and cluster-scoped kinds."""
    echo = Echo()
    node = {"metadata": {"name": "n1", "resourceVersion": "7"}}
    claim = {"metadata": {"name": "a", "namespace": "team"}}
    async with rest(await serve(echo)) as api:
        await api.get(RESOURCE_CLAIM, "a", namespace="team")
        await api.create(DEVICE_CLASS, {"metadata": {"generateName": "c-"}}, dry_run=True)
        await api.create(RESOURCE_CLAIM, claim)
        await api.replace(NODE, node)
        await api.patch(RESOURCE_CLAIM, "a", {"status": {}}, namespace="team", subresource="status")
        await api.delete(NODE, "n1")
        await api.delete(POD, "p", namespace="team", preconditions={"uid": "u"}, grace_period_s=0)
    resource = "/apis/resource.k8s.io/v1"
    options = {"apiVersion": "v1", "kind": "DeleteOptions"}
    assert echo.seen == [
        ("GET", f"{resource}/namespaces/team/resourceclaims/a", {}, None),
        (
            "POST",
            f"{resource}/deviceclasses",
            {"dryRun": "All"},
            {"metadata": {"generateName": "c-"}},
        ),
        ("POST", f"{resource}/namespaces/team/resourceclaims", {}, claim),
        ("PUT", "/api/v1/nodes/n1", {}, node),
        ("PATCH", f"{resource}/namespaces/team/resourceclaims/a/status", {}, {"status": {}}),
        ("DELETE", "/api/v1/nodes/n1", {}, options),
        (
            "DELETE",
            "/api/v1/namespaces/team/pods/p",
            {},
            {**options, "preconditions": {"uid": "u"}, "gracePeriodSeconds": 0},
        ),
    ]
    assert [h.get("Content-Type") for h in echo.headers] == [
        None,
        "application/json",
        "application/json",
        "application/json",
        "application/merge-patch+json",
        "application/json",
        "application/json",
    ]
    assert all(h["User-Agent"].startswith("dra-driver/") for h in echo.headers)
    assert all(h["User-Agent"].endswith(" (test)") for h in echo.headers)


async def test_keeps_its_connection(serve: Serve) -> None:
    """A hundred GETs use one connection."""
    echo = Echo()
    async with rest(await serve(echo)) as api:
        for _ in range(100):
            await api.get(NODE, "n1")
    assert len(echo.seen) == 100
    assert len(echo.connections) == 1


def test_implements_the_port() -> None:
    """Mypy agrees that a RestApi is a KubeApi."""
    port: type[KubeApi] = RestApi
    assert port is RestApi


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "a?b", "a#b", "%2e%2e", "a b", "ä"])
async def test_refuses_names_that_would_change_the_url(serve: Serve, name: str) -> None:
    """A name from outside never reaches another object than the one it names."""
    echo = Echo()
    async with rest(await serve(echo)) as api:
        if name:
            with pytest.raises(NameInvalid, match="cannot be part of a URL"):
                await api.get(RESOURCE_CLAIM, name, namespace="team")
        with pytest.raises(NameInvalid):
            await api.get(RESOURCE_CLAIM, "a", namespace=name or "..")
    assert echo.seen == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Invalid),
        (401, Forbidden),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (410, Gone),
        (415, KubeError),
        (422, Invalid),
        (301, KubeError),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
async def test_maps_each_status_code(serve: Serve, status: int, error: type[KubeError]) -> None:
    """Each code becomes its error, which names verb, kind, object, server, and the server's own words."""

    async def refuse(request: web.Request) -> web.Response:
        body = {"kind": "Status", "code": status, "reason": "Because", "message": "it is so"}
        return web.json_response(body, status=status, headers={"Location": "http://127.0.0.1:1"})

    url = await serve(refuse)
    async with rest(url) as api:
        with pytest.raises(error) as caught:
            await api.get(RESOURCE_CLAIM, "a", namespace="team")
    assert type(caught.value) is error
    assert caught.value.status == status
    assert str(caught.value).startswith(
        f"get ResourceClaim team/a at {url}: {status} Because it is so"
    )


async def test_lists_page_by_page(serve: Serve) -> None:
    """All pages become one list; items say their kind although the server leaves it out; selectors go into each query."""
    queries: list[dict[str, str]] = []

    async def pages(request: web.Request) -> web.Response:
        queries.append(dict(request.query))
        page = int(request.query.get("continue", "0"))
        metadata = {"resourceVersion": "42", **({"continue": str(page + 1)} if page < 2 else {})}
        return web.json_response(
            {"metadata": metadata, "items": [{"metadata": {"name": f"s{page}"}}]}
        )

    async with rest(await serve(pages)) as api:
        listing = await api.list(RESOURCE_SLICE, selectors={"fieldSelector": "spec.driver=d"})
    assert [item["metadata"]["name"] for item in listing.items] == ["s0", "s1", "s2"]
    assert {(i["apiVersion"], i["kind"]) for i in listing.items} == {
        ("resource.k8s.io/v1", "ResourceSlice")
    }
    assert listing.resource_version == "42"
    assert [q.get("continue") for q in queries] == [None, "1", "2"]
    assert all(q["limit"] == "500" and q["fieldSelector"] == "spec.driver=d" for q in queries)


async def test_an_empty_list_may_be_null(serve: Serve) -> None:
    """Go writes an empty slice as null."""
    echo = Echo({"metadata": {"resourceVersion": "1"}, "items": None})
    async with rest(await serve(echo)) as api:
        assert (await api.list(NODE)).items == ()


async def test_a_list_that_is_none_is_refused(serve: Serve) -> None:
    """Something else on that port is told apart from an API server."""
    async with rest(await serve(Echo({"hello": "world"}))) as api:
        with pytest.raises(Unavailable, match="is this an API server"):
            await api.list(NODE)


async def test_server_version(serve: Serve) -> None:
    """Vendors' suffixes do not disturb; without a version it is no API server."""
    echo = Echo({"major": "1", "minor": "36+", "gitVersion": "v1.36.2-gke.100"})
    async with rest(await serve(echo)) as api:
        assert await api.server_version() == (1, 36, 2)
        echo.answer = {"gitVersion": "main"}
        with pytest.raises(Unavailable, match="names no version"):
            await api.server_version()


def watching(*lines: bytes) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def stream(request: web.Request) -> web.StreamResponse:
        assert request.query["watch"] == "true"
        assert request.query["allowWatchBookmarks"] == "true"
        assert request.query["resourceVersion"] == "5"
        assert int(request.query["timeoutSeconds"]) > 0
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            await response.write(line)
        return response

    return stream


def line(event: str, **body: Any) -> bytes:
    return json.dumps({"type": event, "object": body}).encode() + b"\n"


async def changes(api: RestApi) -> list[WatchEvent]:
    async with aclosing(api.watch(NODE, resource_version="5")) as events:
        return [event async for event in events]


async def test_watches_until_the_server_ends_it(serve: Serve) -> None:
    """Events come in order, big ones whole and split over packets; types we do not know are passed over."""
    big = line("MODIFIED", padding="x" * 2_500_000)
    stream = watching(
        line("ADDED", n=1),
        big[:1000],
        big[1000:],
        line("NEW", n=3),
        line("BOOKMARK"),
        line("DELETED"),
    )
    async with rest(await serve(stream)) as api:
        events = await changes(api)
    assert [e.type for e in events] == ["ADDED", "MODIFIED", "BOOKMARK", "DELETED"]
    assert len(events[1].object["padding"]) == 2_500_000


async def test_gone_inside_a_watch(serve: Serve) -> None:
    """A 410 in the stream, which began with 200, is Gone; other codes map as they do elsewhere."""
    gone = line("ERROR", kind="Status", code=410, reason="Expired", message="too old")
    async with rest(await serve(watching(line("ADDED"), gone))) as api:
        with pytest.raises(Gone, match=r"watch Node at .*: 410 Expired too old"):
            await changes(api)
    busy = line("ERROR", kind="Status", code=429, details={"retryAfterSeconds": 3})
    async with rest(await serve(watching(busy))) as api:
        with pytest.raises(Unavailable) as caught:
            await changes(api)
    assert caught.value.retry_after_s == 3


@pytest.mark.parametrize(
    "broken", [b'{"type": "ADDED", "obj', b"<html>\n", b"[]\n", b'{"type": "ADDED"}\n', b"\n"]
)
async def test_a_broken_watch_line(serve: Serve, broken: bytes) -> None:
    """Half a line, and what is no event, is Unavailable: never an event, never a crash."""
    async with rest(await serve(watching(line("ADDED"), broken))) as api:
        with pytest.raises(Unavailable):
            await changes(api)


async def test_a_monstrous_watch_line(serve: Serve) -> None:
    """A line larger than any object may be is an error that asks for no retry."""
    async with rest(await serve(watching(b"x" * 9_000_000))) as api:
        with pytest.raises(KubeError, match="larger than any") as caught:
            await changes(api)
    assert not caught.value.retryable


async def test_answers_are_told_to_whoever_counts_them(serve: Serve) -> None:
    """Verb and status of each exchange, refusals included; 0 where nobody answered."""
    told: list[tuple[str, int]] = []

    async def refuse(request: web.Request) -> web.StreamResponse:
        status = 404 if request.method == "DELETE" else 200
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []}, status=status)

    def note(verb: str, status: int) -> None:
        told.append((verb, status))

    async with RestApi(
        Endpoint(server=await serve(refuse)), component="test", on_answer=note
    ) as api:
        await api.list(NODE)
        with pytest.raises(NotFound):
            await api.delete(NODE, "n")
    async with RestApi(
        Endpoint(server="http://127.0.0.1:1"), component="test", on_answer=note
    ) as api:
        with pytest.raises(Unavailable):
            await api.get(NODE, "n")
    assert told == [("list", 200), ("delete", 404), ("get", 0)]
