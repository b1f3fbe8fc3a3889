"""One HTTP exchange with the API server: a successful answer, or the KubeError that anything else means.

One aiohttp session per server. It sends a GET once more, by itself, when a kept-alive connection turns out to be dead;
that is the only retry.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp.http_exceptions import LineTooLong

from dra_driver.kube.endpoint import Endpoint
from dra_driver.kube.failures import failure_of_response, foreign_text
from dra_driver.model.errors import KubeError, Unavailable
from dra_driver.ports import JsonObject

_READ_BUFFER_BYTES = 2**21  # a watch line may be twice that; an object in etcd is 1.5 MB at most
_KEEP_ALIVE_S = 75.0  # kube-apiserver closes idle connections after 90 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; `what` says it in words, for errors. A `silence_s` makes it a stream: no end but so long a silence."""

    what: str
    path: str
    method: str = "GET"
    params: Mapping[str, str] = field(default_factory=dict)
    body: JsonObject | None = None
    content_type: str = "application/json"
    silence_s: float | None = None

    @property
    def verb(self) -> str:
        """What it does to the object, such as `get` or `list`."""
        return self.what.partition(" ")[0]


class Transport:
    """A session with one API server; make it inside a running event loop and close it.

    `component` goes into the User-Agent. A request that is no stream ends after `timeout_s`. `on_answer` is told the verb and
    the HTTP status of each exchange, 0 where there was no answer.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        component: str,
        timeout_s: float,
        on_answer: Callable[[str, int], None] | None = None,
    ) -> None:
        self.server = endpoint.server.rstrip("/")
        self._on_answer = on_answer
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        version = importlib.metadata.version("dra-driver")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=endpoint.ssl_context() or True, keepalive_timeout=_KEEP_ALIVE_S
            ),
            headers={
                "Accept": "application/json",
                "User-Agent": f"dra-driver/{version} ({component})",
            },
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_READ_BUFFER_BYTES,
        )

    async def aclose(self) -> None:
        """Close all connections; streams in progress end."""
        await self._session.close()

    async def exchange(self, request: Request) -> JsonObject:
        """The JSON object that the server answers."""
        async with self._answer(request) as response:
            return _json_object(request.what, await response.read())

    async def lines(self, request: Request) -> AsyncGenerator[JsonObject, None]:
        """The JSON objects of a stream, one a line, until the server ends it."""
        async with self._answer(request) as response:
            while line := await response.content.readline():
                yield _json_object(request.what, line)

    @asynccontextmanager
    async def _answer(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session.closed:
            raise Unavailable(f"{request.what}: not asked, as this process is stopping")
        try:
            token = await self._token()
            response = await self._send(request, token)
            if response.status == 401:
                await response.read()  # which frees its connection
                renewed = await self._token(renew=True)
                if renewed != token:
                    token, response = renewed, await self._send(request, renewed)
            async with response:
                if response.status >= 300:
                    raise await _refusal(request.what, response, token)
                yield response
        except LineTooLong as error:
            raise KubeError(f"{request.what}: an object is larger than any may be") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            cause = foreign_text(error) or type(error).__name__
            raise Unavailable(f"{request.what}: no answer ({cause})") from error

    async def _token(self, *, renew: bool = False) -> str | None:
        return await self._endpoint.token.current(renew=renew) if self._endpoint.token else None

    async def _send(self, request: Request, token: str | None) -> aiohttp.ClientResponse:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        options: dict[str, Any] = {}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
            options["data"] = json.dumps(request.body).encode()
        if request.silence_s is not None:
            options["timeout"] = aiohttp.ClientTimeout(
                total=None, sock_connect=self._timeout_s, sock_read=request.silence_s
            )
        try:
            response = await self._session.request(
                request.method,
                self.server + request.path,
                params=request.params,
                headers=headers,
                allow_redirects=False,
                server_hostname=self._endpoint.tls_server_name,
                **options,
            )
        except (aiohttp.ClientError, TimeoutError, OSError):
            self._tell(request.verb, 0)
            raise
        self._tell(request.verb, response.status)
        return response

    def _tell(self, verb: str, status: int) -> None:
        if self._on_answer is not None:
            self._on_answer(verb, status)


def _json_object(what: str, text: bytes) -> JsonObject:
    """The object; Unavailable for anything else, which is what a proxy or half an answer looks like."""
    try:
        parsed: Any = json.loads(text)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        begin = foreign_text(text[:80].decode(errors="replace"))
        raise Unavailable(
            f"{what}: the answer is no JSON object but {begin!r}; is a proxy between?"
        )
    return parsed


async def _refusal(what: str, response: aiohttp.ClientResponse, token: str | None) -> KubeError:
    body = await response.read()
    if token:
        body = body.replace(token.encode(), b"<token>")  # some proxies show what they were sent
    return failure_of_response(
        what, response.status, body, retry_after=response.headers.get("Retry-After")
    )
