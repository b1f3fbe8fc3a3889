"""The benchmark's API server: claims, slices and a Node from memory, so cheap that what is measured is the driver in front of it.

`python -m tests.bench.apiserver` serves a free port of loopback, prints its URL and ends with its stdin. Speaks HTTP/1.1 with
keep-alive, JSON only. Beside Kubernetes' paths there is `/bench`: GET tells what happened, PUT `/bench/claims` adds claims
and PUT `/bench/outage` makes every later request meet a reset connection, though it is still counted.
"""

from __future__ import annotations

import asyncio
import json
import sys
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from tests.bench.objects import NODE_NAME
from tests.bench.storage import Refusal, Storage, locate


class Connection(asyncio.Protocol):
    """One client's connection: requests one after the other, or a watch until it goes away."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._storage.watchers.discard(self._send_line)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head, begin = self._received[:end], end + 4
            length = _content_length(head)
            if len(self._received) < begin + length:
                return
            body, self._received = (
                self._received[begin : begin + length],
                self._received[begin + length :],
            )
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            self._answer(method, target, body)

    def _answer(self, method: str, target: str, body: bytes) -> None:
        assert self._transport is not None
        url = urlsplit(target)
        if url.path.startswith("/bench"):
            self._send(200, self._controlled(url.path, body))
            return
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            place = locate(method, url.path, query)
            self._storage.count(place)
            if self._storage.outage:
                self._transport.abort()
            elif place.verb == "watch":
                self._begin_stream()
                self._storage.watch(place, query, self._send_line)
            else:
                self._send(200, self._storage.answer(place, query, body))
        except Refusal as refusal:
            self._send(refusal.code, refusal.status())

    def _controlled(self, path: str, body: bytes) -> bytes:
        match path:
            case "/bench/claims":
                self._storage.add_claims(json.loads(body))
            case "/bench/outage":
                self._storage.outage = json.loads(body)
        return json.dumps(self._storage.report()).encode()

    def _begin_stream(self) -> None:
        assert self._transport is not None
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
        self._transport.write(head + b"\r\n\r\n")

    def _send_line(self, line: bytes) -> None:
        assert self._transport is not None
        self._transport.write(b"%x\r\n%s\r\n" % (len(line), line))

    def _send(self, code: int, body: bytes) -> None:
        assert self._transport is not None
        phrase = HTTPStatus(code).phrase.encode()
        head = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._transport.write(head % (code, phrase, len(body)) + body)


def _content_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    return int(lower[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


async def main() -> None:
    """Serve until stdin ends."""
    storage = Storage(NODE_NAME)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(storage), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"http://127.0.0.1:{port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
