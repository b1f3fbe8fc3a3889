"""What becomes of broken connections, slow servers and expiring tokens."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from dra_driver.kube.endpoint import Endpoint
from dra_driver.kube.rest import RestApi
from dra_driver.kube.tokens import FixedToken, TokenFile
from dra_driver.kube.transport import Request, Transport
from dra_driver.model.errors import Forbidden, KubeError, SettingsError, Unavailable
from dra_driver.model.kinds import NODE
from tests.passing_time import pass_time

Serve = Callable[..., Awaitable[str]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

TIMEOUT_S = 30.0
"""More than any request takes; tests of a time-out have a short one."""


def rest(url: str, *, timeout_s: float = TIMEOUT_S, **endpoint: object) -> RestApi:
    return RestApi(Endpoint(server=url, **endpoint), component="test", timeout_s=timeout_s)  # type: ignore[arg-type]


async def refused(url: str, *, timeout_s: float = TIMEOUT_S) -> KubeError:
    async with rest(url, timeout_s=timeout_s) as api:
        with pytest.raises(KubeError) as caught:
            await api.get(NODE, "n1")
    return caught.value


@asynccontextmanager
async def raw_server(talk: Talk) -> AsyncIterator[str]:
    """The URL of a server that talks TCP as it likes; all its conversations are over when this ends."""
    conversations: list[asyncio.Task[None]] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await talk(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.append(asyncio.create_task(converse(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"
    await asyncio.gather(*conversations)


async def refused_by(talk: Talk, *, timeout_s: float = TIMEOUT_S) -> KubeError:
    async with raw_server(talk) as url:
        return await refused(url, timeout_s=timeout_s)


def reset(writer: asyncio.StreamWriter) -> None:
    """Let its closing be RST instead of FIN."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_nobody_listens() -> None:
    """A refused connection is Unavailable and names the server."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        error = await refused(f"http://127.0.0.1:{port}")
    assert isinstance(error, Unavailable)
    assert (error.status, error.retry_after_s) == (0, None)
    assert f"get Node n1 at http://127.0.0.1:{port}: no answer" in str(error)


async def test_a_slow_server(serve: Serve) -> None:
    """A request ends after its time-out."""

    async def sleep(request: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    assert isinstance(await refused(await serve(sleep), timeout_s=0.3), Unavailable)


async def test_a_half_open_connection() -> None:
    """A server that accepts and then says nothing at all costs a time-out, no more."""

    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    assert isinstance(await refused_by(say_nothing, timeout_s=0.3), Unavailable)


async def test_a_reset_connection() -> None:
    """RST instead of an answer."""

    async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reset(writer)

    assert isinstance(await refused_by(slam), Unavailable)


async def test_half_an_answer() -> None:
    """A body cut short is never taken for an object, even where it is JSON so far."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"metadata": {}}')
        await writer.drain()

    assert isinstance(await refused_by(cut), Unavailable)


async def test_garbage_instead_of_http() -> None:
    """Not even HTTP."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
        await writer.drain()

    assert isinstance(await refused_by(babble), Unavailable)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "<html>login</html>"])
async def test_an_answer_that_is_no_object(serve: Serve, text: str) -> None:
    """200 with anything but a JSON object is Unavailable: some proxy answered."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=text, content_type="application/json")

    error = await refused(await serve(answer))
    assert isinstance(error, Unavailable)
    assert "no JSON object" in str(error)


async def test_a_silent_watch_is_given_up() -> None:
    """A watch whose server has vanished ends with Unavailable after the silence, not never."""

    async def go_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await writer.drain()
        await reader.read()

    async with raw_server(go_silent) as url:
        transport = Transport(Endpoint(server=url), component="test", timeout_s=5)
        with pytest.raises(Unavailable, match="watch it: no answer"):
            await anext(transport.lines(Request(what="watch it", path="/", silence_s=0.2)))
        await transport.aclose()


async def test_a_watch_outlives_the_request_timeout(serve: Serve) -> None:
    """The time-out of other requests never cuts a watch."""

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(4):
            await response.write(b'{"type": "ADDED", "object": {}}\n')
            await read.acquire()
        return response

    seen, read = 0, asyncio.Semaphore(0)
    async with rest(await serve(stream)) as api:
        async for _ in api.watch(NODE, resource_version="1"):
            seen += 1
            pass_time(TIMEOUT_S)
            await asyncio.sleep(0)
            read.release()
    assert seen == 4


async def test_nothing_is_retried(serve: Serve) -> None:
    """One call, one request: who calls decides about trying again."""
    calls: list[str] = []

    async def busy(request: web.Request) -> web.Response:
        calls.append(request.path)
        return web.Response(status=429, headers={"Retry-After": "7"}, text="Too many requests")

    error = await refused(await serve(busy))
    assert isinstance(error, Unavailable)
    assert error.retry_after_s == 7
    assert str(error).endswith("429 Too many requests")
    assert len(calls) == 1


async def test_a_rotated_token_is_read_again(serve: Serve, tmp_path: Path) -> None:
    """A token file that changes is sent from then on; no request fails in between."""
    seen: list[str] = []

    async def note(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({})

    file = tmp_path / "token"
    file.write_text("one\n")
    async with rest(await serve(note), token=TokenFile(file)) as api:
        await api.get(NODE, "n1")
        (tmp_path / "next").write_text("two\n")
        (tmp_path / "next").replace(file)
        await api.get(NODE, "n1")
        file.unlink()
        await api.get(NODE, "n1")
    assert seen == ["Bearer one", "Bearer two", "Bearer two"]


async def test_a_401_reads_the_token_once_more(serve: Serve, tmp_path: Path) -> None:
    """A token that changed without looking changed is found after a 401; one that did not change is not sent again."""
    seen: list[str] = []

    async def guard(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        good = seen[-1] == "Bearer bb"
        return web.json_response({}) if good else web.Response(status=401, text="Unauthorized")

    file = tmp_path / "token"
    file.write_text("aa")
    before = file.stat()
    async with rest(await serve(guard), token=TokenFile(file)) as api:
        with pytest.raises(Forbidden, match="401 Unauthorized; the token is missing, expired"):
            await api.get(NODE, "n1")
        with file.open("r+") as same_inode:
            same_inode.write("bb")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        await api.get(NODE, "n1")
    assert seen == ["Bearer aa", "Bearer aa", "Bearer bb"]


async def test_a_401_whose_token_cannot_be_renewed(serve: Serve) -> None:
    """The reason why there is no new token is what the caller is told."""

    class Expired:
        async def current(self, *, renew: bool = False) -> str:
            if renew:
                raise Forbidden("log in again")
            return "old"

    async def guard(request: web.Request) -> web.Response:
        return web.Response(status=401, text="Unauthorized")

    async with rest(await serve(guard), token=Expired()) as api:
        with pytest.raises(Forbidden, match="log in again"):
            await api.get(NODE, "n1")


async def test_no_error_shows_the_token(serve: Serve) -> None:
    """A proxy that shows the request in its error page does not put our token into a log."""

    async def show(request: web.Request) -> web.Response:
        return web.Response(status=403, text=f"denied: {request.headers['Authorization']}")

    async with rest(await serve(show), token=FixedToken("s3cret")) as api:
        with pytest.raises(Forbidden) as caught:
            await api.get(NODE, "n1")
    assert "s3cret" not in str(caught.value)
    assert "Bearer <token>" in str(caught.value)


async def greet(request: web.Request) -> web.Response:
    return web.Response(text=json.dumps({}))


def server_context(certificates: Path, *, ask_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    if ask_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates / "client.pem")
    return context


async def test_tls_trusts_the_named_ca_alone(serve: Serve, certificates: Path) -> None:
    """With the CA it connects, without it never, unless told not to look."""
    url = await serve(greet, tls=server_context(certificates))
    ca = (certificates / "server.pem").read_text()
    for options in ({"ca_pem": ca}, {"verify": False}):
        async with rest(url, **options) as api:
            await api.get(NODE, "n1")
    async with rest(url) as api:
        with pytest.raises(Unavailable, match="certificate"):
            await api.get(NODE, "n1")


async def test_tls_server_name(serve: Serve, certificates: Path) -> None:
    """The name in the certificate may differ from the URL's, if it is named."""
    url = (await serve(greet, tls=server_context(certificates))).replace("127.0.0.1", "localhost")
    ca = (certificates / "server.pem").read_text()
    async with rest(url, ca_pem=ca, tls_server_name="api.test") as api:
        await api.get(NODE, "n1")
    async with rest(url, ca_pem=ca) as api:
        with pytest.raises(Unavailable):
            await api.get(NODE, "n1")


async def test_tls_client_certificate(serve: Serve, certificates: Path) -> None:
    """A client certificate held in memory is presented, and leaves no file behind."""
    url = await serve(greet, tls=server_context(certificates, ask_client=True))
    ca = (certificates / "server.pem").read_text()
    pem = "".join((certificates / f"client.{part}").read_text() for part in ("pem", "key"))
    async with rest(url, ca_pem=ca, client_pem=pem) as api:
        await api.get(NODE, "n1")
    async with rest(url, ca_pem=ca) as api:
        with pytest.raises(Unavailable):
            await api.get(NODE, "n1")


async def test_tls_material_that_does_not_load(certificates: Path) -> None:
    """Bad certificates are settings errors which say whose they are, and never show a key."""
    url = "https://127.0.0.1:1"
    mixed = (certificates / "client.pem").read_text() + (certificates / "server.key").read_text()
    with pytest.raises(SettingsError, match="belong together") as caught:
        rest(url, client_pem=mixed)
    assert "PRIVATE" not in str(caught.value)
    with pytest.raises(SettingsError, match="no PEM certificate"):
        rest(url, ca_pem="nonsense")
    assert "PRIVATE" not in repr(Endpoint(server=url, client_pem=mixed))
