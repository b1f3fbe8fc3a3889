"""Real servers on loopback: HTTP ones that a test scripts, and certificates for TLS."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from ssl import SSLContext
from typing import TypeAlias

import pytest
from aiohttp import web

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Serves a handler for all paths and returns the URL."""
    runners: list[web.AppRunner] = []

    async def start(handler: Handler, tls: SSLContext | None = None) -> str:
        async def answer(request: web.Request) -> web.StreamResponse:
            return await handler(request)

        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        host, port = runner.addresses[0][:2]
        return f"{'https' if tls else 'http'}://{host}:{port}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Waits until a condition holds, which takes milliseconds, and gives up after seconds."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 -- conditions of all kinds
                await asyncio.sleep(0.002)

    return wait


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `server.pem`/`server.key` (name api.test, address 127.0.0.1) and `client.pem`/`client.key`."""
    folder = tmp_path_factory.mktemp("certificates")
    names = {"server": "DNS:api.test,IP:127.0.0.1", "client": "DNS:client.test"}
    for name, alternatives in names.items():
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]
        command += ["-nodes", "-days", "2", "-subj", f"/CN={name}"]
        command += ["-addext", f"subjectAltName={alternatives}"]
        command += ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"]
        subprocess.run(command, check=True, capture_output=True)
    return folder
