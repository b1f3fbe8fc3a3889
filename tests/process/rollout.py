"""What tests of rolling upgrades stand on: a kubelet that calls the newest of several processes, and every write of a slice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dra_driver.model.claim import ClaimRef
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.model.names import DRIVER_NAME
from dra_driver.model.record import PreparedDevice
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import GroupResource
from dra_driver.sandbox.apiserver.store import Change, Store
from dra_driver.sandbox.kubelet import calls
from dra_driver.sandbox.kubelet.deadlines import Deadlines
from dra_driver.sandbox.kubelet.health import NodeHealth
from dra_driver.sandbox.kubelet.plugins import Plugins
from dra_driver.sandbox.kubelet.registry import Registry
from tests.process.conftest import Plugin, eventually

REGISTERED = "registered with the kubelet"
DEADLINES = Deadlines(poll_s=0.02, retry_s=0.1)

_SLICES = GroupResource(RESOURCE_SLICE.group, RESOURCE_SLICE.plural)


class Kubelet:
    """Registers whoever opens a socket, and hangs up on whoever removes it. Calls raise ClaimError."""

    def __init__(self, registry_dir: Path) -> None:
        self._plugins = Plugins()
        self._health = NodeHealth(DEADLINES)
        self._health.version = (1, 37, 1)
        self.registry = Registry(registry_dir, self._plugins, self._health, DEADLINES)

    async def prepare(self, claim: JsonObject) -> tuple[PreparedDevice, ...]:
        """The claim's devices."""
        ref = _ref(claim)
        answers = await calls.prepare(self._plugins.endpoint(DRIVER_NAME), [ref], timeout_s=45.0)
        return answers[ref.uid]

    async def unprepare(self, claim: JsonObject) -> None:
        """The claim holds nothing."""
        endpoint = self._plugins.endpoint(DRIVER_NAME)
        await calls.unprepare(endpoint, [_ref(claim)], timeout_s=45.0)

    def health(self, device: str) -> str:
        """What is known of the device."""
        return self._health.of(DRIVER_NAME, "n/nvidia", device).health

    def calls_at(self, plugin: Plugin) -> bool:
        """Whether this process gets the calls."""
        return self._plugins.endpoint(DRIVER_NAME).path == plugin.sockets[1]


@asynccontextmanager
async def running_kubelet(registry_dir: Path) -> AsyncIterator[Kubelet]:
    """A kubelet is there while the block runs."""
    kubelet = Kubelet(registry_dir)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(kubelet.registry.run())
        yield kubelet
        task.cancel()


@dataclass
class SliceWrites:
    """Every change of a slice since the beginning, and how many of them left a pool that was not whole."""

    store: Store
    kinds: Counter[str] = field(default_factory=Counter)
    gaps: int = 0

    def note(self, resource: GroupResource, change: Change) -> None:
        """One write, seen from inside of it."""
        if resource == _SLICES:
            self.kinds[change.type] += 1
            self.gaps += not is_complete(list(self.store.objects(_SLICES).values()))


def is_complete(slices: Sequence[JsonObject]) -> bool:
    """Whether there is a pool, and each pool has all slices of its newest generation."""
    pools = [item["spec"]["pool"] for item in slices]
    newest: dict[str, int] = {}
    for pool in pools:
        newest[pool["name"]] = max(pool["generation"], newest.get(pool["name"], 0))
    current = [pool for pool in pools if pool["generation"] == newest[pool["name"]]]
    counts = Counter(pool["name"] for pool in current)
    return bool(pools) and all(counts[p["name"]] == p["resourceSliceCount"] for p in current)


@contextmanager
def watched_slices(store: Store) -> Iterator[SliceWrites]:
    """Nothing that happens to a slice during the block is missed."""
    writes = SliceWrites(store)
    stop = store.observe(writes.note)
    try:
        yield writes
    finally:
        stop()


async def until_registered(plugin: Plugin, *, times: int = 1) -> None:
    """The kubelet has told the process so, that often."""
    await eventually(lambda: plugin.log.count(REGISTERED) >= times)


def _ref(claim: JsonObject) -> ClaimRef:
    metadata = claim["metadata"]
    return ClaimRef(namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"])
