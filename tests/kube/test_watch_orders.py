"""Cache against API servers that end, cut, repeat and expire their watches at random: in the end it has what there is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from dra_driver.kube.watch import Cache, Scope
from dra_driver.model.errors import Gone, Unavailable
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.ports import KubeApi, Listing, WatchEvent

CHANGES = 30


class Clock:
    """Sleeping takes no time; lists fall due at random moments."""

    def __init__(self, rng: random.Random) -> None:
        self.now = 0.0
        self._rng = rng

    def monotonic(self) -> float:
        self.now += self._rng.choice([0.0, 0.0, 0.0, 50.0])
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Moody:
    """An API server whose objects change while it is watched, and whose watches end in every possible way."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.history: list[WatchEvent] = []
        self.model: dict[str, str] = {}
        self.is_calm = asyncio.Event()

    def change(self) -> None:
        """One object comes, changes or goes."""
        name, version = self.rng.choice("abc"), str(len(self.history) + 1)
        item = {"metadata": {"name": name, "resourceVersion": version}}
        if name not in self.model:
            self.history.append(WatchEvent("ADDED", item))
        elif self.rng.random() < 0.5:
            self.history.append(WatchEvent("MODIFIED", item))
        else:
            self.history.append(WatchEvent("DELETED", item))
            del self.model[name]
            return
        self.model[name] = version

    async def list(self, *args: Any, **more: Any) -> Listing:
        items = (
            {"metadata": {"name": name, "resourceVersion": version}}
            for name, version in self.model.items()
        )
        return Listing(tuple(items), str(len(self.history)))

    async def watch(
        self, *args: Any, resource_version: str, **more: Any
    ) -> AsyncGenerator[WatchEvent, None]:
        position = int(resource_version)
        while True:
            for event in self.history[position:]:
                yield event
                position += 1
                if self.rng.random() < 0.2:
                    yield event  # once more
            await asyncio.sleep(0)
            if len(self.history) >= CHANGES:
                self.is_calm.set()
                continue
            for _ in range(self.rng.randrange(3)):
                self.change()
            match self.rng.randrange(8):
                case 0:
                    return
                case 1:
                    raise Unavailable("the connection broke")
                case 2:
                    raise Gone("too old", status=410)
                case 3:
                    bookmark = {"metadata": {"resourceVersion": str(position)}}
                    yield WatchEvent("BOOKMARK", bookmark)


@pytest.mark.parametrize("first", range(0, 200, 50))
async def test_in_any_order_of_events_the_copy_becomes_the_truth(first: int) -> None:
    """F26: two hundred random histories, with changes in every gap."""
    for seed in range(first, first + 50):
        rng = random.Random(seed)
        server = Moody(rng)
        cache = Cache(
            cast("KubeApi", server), Scope(kind=RESOURCE_SLICE), clock=Clock(rng), rng=rng
        )
        task = asyncio.create_task(cache.run())
        await server.is_calm.wait()
        for _ in range(50):
            await asyncio.sleep(0)
        known = {
            name: item["metadata"]["resourceVersion"] for (_, name), item in cache.objects.items()
        }
        assert known == server.model, f"seed {seed}"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
