"""Metrics and probes, over real HTTP."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

import aiohttp
import pytest

from dra_driver.model.errors import StartError
from dra_driver.observe.probes import Condition, Pages, serving_pages


@dataclass
class Plant:
    """Something to look at."""

    health: dict[str, str] = field(default_factory=lambda: {"workers": ""})
    readiness: dict[str, str] = field(default_factory=lambda: {"registered": "", "slices": ""})

    def pages(self) -> Pages:
        return Pages(
            metrics=lambda: "up 1\n",
            health=lambda: Condition(self.health),
            readiness=lambda: Condition(self.readiness),
        )


async def fetch(host: str, port: int, path: str, method: str = "GET") -> tuple[int, str, str]:
    where = f"[{host}]" if ":" in host else host
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://{where}:{port}{path}") as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_metrics_are_served_as_prometheus_wants_them() -> None:
    """The page, and the content type that names the format's version."""
    async with serving_pages(Plant().pages(), "127.0.0.1:0") as (host, port):
        status, kind, text = await fetch(host, port, "/metrics")
    assert (status, text) == (200, "up 1\n")
    assert kind == "text/plain; version=0.0.4; charset=utf-8"


async def test_readiness_says_which_part_is_missing() -> None:
    """503 while anything is missing, with a line for each part; 200 once nothing is."""
    plant = Plant(readiness={"registered": "", "slices": "not stored yet"})
    async with serving_pages(plant.pages(), "127.0.0.1:0") as (host, port):
        status, _, text = await fetch(host, port, "/readyz")
        assert (status, text) == (503, "registered: ok\nslices: not stored yet\n")
        plant.readiness["slices"] = ""
        status, _, text = await fetch(host, port, "/readyz")
    assert (status, text) == (200, "registered: ok\nslices: ok\n")


async def test_health_is_another_question_than_readiness() -> None:
    """A plugin that waits for the API server is not ready, and a restart would not help."""
    plant = Plant(readiness={"slices": "no answer from the API server"})
    async with serving_pages(plant.pages(), "127.0.0.1:0") as (host, port):
        assert (await fetch(host, port, "/healthz"))[0] == 200
        plant.health["workers"] = "a thread has ended"
        assert (await fetch(host, port, "/healthz"))[0] == 503


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/metrics", 405), ("GET", "/debug", 404)]
)
async def test_there_is_nothing_else(method: str, path: str, status: int) -> None:
    """Three pages, to be read only."""
    async with serving_pages(Plant().pages(), "127.0.0.1:0") as (host, port):
        assert (await fetch(host, port, path, method))[0] == status


async def test_ipv6_addresses_are_taken_as_pods_have_them() -> None:
    """With brackets and without: the downward API gives them bare."""
    for address in ("::1:0", "[::1]:0"):
        async with serving_pages(Plant().pages(), address) as (host, port):
            assert (await fetch(host, port, "/healthz"))[0] == 200


async def test_a_taken_port_names_the_setting() -> None:
    """The one line that the process dies with says what to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartError, match=f"^metrics address {address}: .*--metrics-address"):
            async with serving_pages(Plant().pages(), address):
                pass


async def test_the_port_is_free_again_afterwards() -> None:
    """A restarted process finds it free, even with a connection that somebody kept open."""
    async with aiohttp.ClientSession() as session:
        async with serving_pages(Plant().pages(), "127.0.0.1:0") as (host, port):
            await session.get(f"http://{host}:{port}/healthz")
        async with serving_pages(Plant().pages(), f"{host}:{port}") as again:
            assert again == (host, port)
