"""Lists: selectors, pages over one version, exact versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver import ApiServer

Build = Callable[..., JsonObject]
SLICES = "/apis/resource.k8s.io/v1/resourceslices"


def names(listed: JsonObject) -> list[str]:
    return [item["metadata"]["name"] for item in listed["items"]]


async def test_an_expired_page_is_gone(server: ApiServer, client: Any, new_slice: Build) -> None:
    """A continue token of a forgotten version is HTTP 410."""
    for name in "ab":
        await client.send("POST", SLICES, new_slice(name))
    token = (await client.send("GET", f"{SLICES}?limit=1"))["metadata"]["continue"]
    await client.send("POST", SLICES, new_slice("c"))
    server.store.compact()
    refusal = await client.send("GET", f"{SLICES}?limit=1&continue={token}", code=410)
    assert refusal["reason"] == "Expired"
