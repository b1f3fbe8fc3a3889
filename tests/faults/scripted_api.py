"""A server between the plugin and the API server that answers by a script: it drops, resets, delays, refuses and forges.

Each fault takes the next requests that it concerns, and then everything passes again. It speaks HTTP/1.1 byte by byte, so that it can do
what no web framework would.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from dra_driver.ports import JsonObject

Kind = Literal["drop", "reset", "status", "gone", "delay", "half-open", "strip", "cut"]
_REASONS: Mapping[int, str] = {
    409: "Conflict",
    410: "Gone",
    429: "TooManyRequests",
    500: "InternalError",
}


@dataclass(slots=True)
class Fault:
    """What happens to the next `times` requests whose method is `method` and whose path has `path` in it.

    drop: closed without an answer; reset: a TCP reset; status: that `status`, with `retry_after_s`; gone: a watch that ends with the
    Event of 410; delay: `delay_s` late; half-open: never answered, the connection stays; strip: the answer without the fields of
    `fields`; cut: half of the answer.
    """

    kind: Kind
    path: str = "/"
    method: str = ""
    times: int = 1
    status: int = 500
    retry_after_s: int = 0
    delay_s: float = 0.0
    fields: tuple[str, ...] = ()


@dataclass
class Request:
    """One request as it came."""

    method: str
    target: str
    head: bytes
    body: bytes

    def meets(self, fault: Fault) -> bool:
        return fault.times > 0 and fault.method in {"", self.method} and fault.path in self.target


@dataclass
class ScriptedApi:
    """`server` is the real one's URL; `met` says which faults were met, in order; `seen` are all requests."""

    server: str
    faults: list[Fault] = field(default_factory=list)
    met: list[Kind] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    connections: set[asyncio.Task[None]] = field(default_factory=set)

    def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The plugin has connected."""
        task = asyncio.create_task(self._serve(reader, writer))
        self.connections.add(task)
        task.add_done_callback(self.connections.discard)

    async def close(self) -> None:
        """End all connections."""
        for task in tuple(self.connections):
            task.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the plugin's, request by request."""
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while request := await _read_request(reader):
                    if not await self._answer(request, self._fault_of(request), writer):
                        break
        finally:
            writer.close()

    def _fault_of(self, request: Request) -> Fault | None:
        self.seen.append((request.method, request.target))
        fault = next((one for one in self.faults if request.meets(one)), None)
        if fault is not None:
            fault.times -= 1
            self.met.append(fault.kind)
        return fault

    async def _answer(
        self, request: Request, fault: Fault | None, writer: asyncio.StreamWriter
    ) -> bool:
        """Whether the connection goes on."""
        kind = fault.kind if fault else None
        if kind == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if kind in {"drop", "reset"}:
            return False
        if kind == "half-open":
            await asyncio.Event().wait()
        if fault is not None and kind in {"status", "gone"}:
            writer.write(_refusal(fault) if kind == "status" else _gone_event())
            await writer.drain()
            return kind == "status"
        if fault is not None and kind == "delay":
            await asyncio.sleep(fault.delay_s)
        await self._pass_on(request, fault, writer)
        return False

    async def _pass_on(
        self, request: Request, fault: Fault | None, writer: asyncio.StreamWriter
    ) -> None:
        """The real server's answer, as it comes; changed where the fault says so. One connection for each."""
        place = urlsplit(self.server)
        upstream, sending = await asyncio.open_connection(place.hostname, place.port)
        try:
            sending.write(request.head + request.body)
            await sending.drain()
            if fault is not None and fault.kind in {"strip", "cut"}:
                answer = await upstream.read()
                changed = (
                    answer[: len(answer) // 2]
                    if fault.kind == "cut"
                    else _without(answer, fault.fields)
                )
                writer.write(changed)
                await writer.drain()
                return
            while chunk := await upstream.read(65536):
                writer.write(chunk)
                await writer.drain()
        finally:
            sending.close()


@asynccontextmanager
async def scripted(server: str) -> AsyncIterator[ScriptedApi]:
    """The server between, while the block runs."""
    script = ScriptedApi(server)
    listening = await asyncio.start_server(script.connect, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield script
    finally:
        listening.close()
        await script.close()


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request, made to be the connection's last; None when there is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines[1:])}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    kept = [
        one for one in lines[1:] if one and not one.lower().startswith(("connection", "accept-enc"))
    ]
    closing = "\r\n".join([lines[0], *kept, "Connection: close", "", ""])
    return Request(method, target, closing.encode("latin-1"), body)


def _refusal(fault: Fault) -> bytes:
    reason = _REASONS.get(fault.status, "Unknown")
    status: JsonObject = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": "scripted",
        "reason": reason,
        "code": fault.status,
    }
    more = f"Retry-After: {fault.retry_after_s}\r\n" if fault.retry_after_s else ""
    return _message(f"{fault.status} {reason}", json.dumps(status).encode(), more)


def _gone_event() -> bytes:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "code": 410,
        "reason": "Expired",
        "message": "scripted",
    }
    line = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
    return _message("200 OK", line, "Connection: close\r\n")


def _message(status: str, body: bytes, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def _without(answer: bytes, fields: tuple[str, ...]) -> bytes:
    """The answer with these fields gone, at any depth."""
    _, _, body = answer.partition(b"\r\n\r\n")
    status = answer.partition(b"\r\n")[0].decode().partition(" ")[2]
    return _message(
        status,
        json.dumps(_stripped(json.loads(body), frozenset(fields))).encode(),
        "Connection: close\r\n",
    )


def _stripped(value: object, fields: frozenset[str]) -> object:
    if isinstance(value, dict):
        return {key: _stripped(one, fields) for key, one in value.items() if key not in fields}
    return [_stripped(one, fields) for one in value] if isinstance(value, list) else value
