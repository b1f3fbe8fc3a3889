"""Two plugin processes over one folder, as a rolling upgrade has them for a while."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest

from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.ports import JsonObject
from dra_driver.rules.draining import DRAIN_ANNOTATION
from tests.process.conftest import Cluster, Plugin, eventually
from tests.process.rollout import Kubelet, running_kubelet, until_registered, watched_slices

WHOLE = "gpu-0000-1b-00-0"
OTHER = "gpu-0000-43-00-0"
SMALL = f"{WHOLE}-mig-1g-10gb-6"
LEADS = "this process publishes and reconciles"
PROBES = 2
"""Dry runs of a process that looks at the slices for the first time."""
LAID_DOWN = "a newer process publishes and reconciles"


class Pair(NamedTuple):
    """Two processes of one node; the second is started by the test."""

    old: Plugin
    new: Plugin

    @property
    def sockets(self) -> set[Path]:
        """All that there are, of either process."""
        return {*self.old.registry_dir.iterdir(), *self.old.data_dir.glob("*.sock")}

    def leftovers(self) -> list[str]:
        """What there is of claims."""
        return self.old.leftovers()


@pytest.fixture
async def kubelet(folder: Path) -> AsyncIterator[Kubelet]:
    """Registers both, and calls the newest."""
    (folder / "registry").mkdir()
    async with running_kubelet(folder / "registry") as kubelet:
        yield kubelet


@asynccontextmanager
async def pair_of(folder: Path, cluster: Cluster) -> AsyncIterator[Pair]:
    """None runs yet; whatever they become, they are gone afterwards."""
    plugins = [
        Plugin(folder, cluster.server.url, "8xh100-80", pod_uid=uid) for uid in ("old", "new")
    ]
    try:
        yield Pair(*plugins)
    finally:
        for plugin in plugins:
            if plugin.process is not None:
                await plugin.stop(signal.SIGKILL)


@pytest.fixture
async def alone(folder: Path, cluster: Cluster, kubelet: Kubelet) -> AsyncIterator[Pair]:
    """The old one serves, is registered and has published; the new one was not started yet."""
    async with pair_of(folder, cluster) as pair:
        await pair.old.start()
        await until_registered(pair.old)
        await eventually(cluster.is_published)
        yield pair


@pytest.fixture
async def pair(alone: Pair) -> Pair:
    """Both serve, and the new one leads."""
    await alone.new.start()
    await until_registered(alone.new)
    await eventually(lambda: LAID_DOWN in alone.old.log and LEADS in alone.new.log)
    return alone


def ordered(pair: Pair, order: str) -> tuple[Plugin, Plugin]:
    """The two processes, in the order that the words say."""
    one, other = (getattr(pair, name) for name in order.split("-"))
    return one, other


async def prepared(plugin: Plugin, claim: JsonObject) -> tuple[object, ...]:
    """What the process answers to a prepare, which must succeed."""
    answer = (await plugin.prepare(claim))[claim["metadata"]["uid"]]
    assert answer.error == "", answer.error
    return tuple(answer.devices)


async def unprepared(plugin: Plugin, claim: JsonObject) -> None:
    """Have it let go, which must succeed."""
    assert (await plugin.unprepare(claim))[claim["metadata"]["uid"]].error == ""


async def until_waiting(plugin: Plugin, *, times: int = 1) -> None:
    """A prepare of it waits for another claim."""
    await eventually(lambda: plugin.log.count("waiting") >= times)


async def until_looked(pair: Pair, cluster: Cluster) -> None:
    """The newer one leads, has had its first look at everything, and has nothing more to ask."""
    probed = len(await cluster.slices()) + 2 * PROBES
    await eventually(lambda: cluster.server.requests["create", "resourceslices"] == probed)
    await cluster.until_quiet(*pair)


async def wipe(cluster: Cluster) -> None:
    """Delete all slices, as a kubelet that starts."""
    url = f"{cluster.server.url}/apis/resource.k8s.io/v1/resourceslices"
    async with aiohttp.ClientSession() as session, session.delete(url) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("order", ["old-new", "new-old"])
async def test_either_answers_for_what_the_other_has_prepared(
    pair: Pair, cluster: Cluster, order: str
) -> None:
    """A replay is the same answer, an unprepare gives everything back, and the first one knows of it."""
    await until_looked(pair, cluster)
    first, second = ordered(pair, order)
    claim = await cluster.new_claim(SMALL)
    devices = await prepared(first, claim)
    before = Counter(cluster.server.requests)
    assert await prepared(second, claim) == devices
    assert (cluster.server.requests - before)["get", "resourceclaims"] == 0
    await unprepared(second, claim)
    assert pair.leftovers() == []
    successor = await cluster.new_claim(WHOLE)
    await prepared(first, successor)
    await unprepared(first, claim)
    await unprepared(second, successor)
    assert pair.leftovers() == []


async def test_a_claim_asked_of_both_at_once_is_prepared_once(pair: Pair, cluster: Cluster) -> None:
    """Both give the same answer, and there is one record and one instance for each of five claims."""
    claims = [await cluster.new_claim(f"{WHOLE}-mig-1g-10gb-{start}") for start in range(5)]
    asked = [prepared(plugin, claim) for claim in claims for plugin in pair]
    answers = await asyncio.gather(*asked)
    assert answers[::2] == answers[1::2]
    assert len(pair.leftovers()) == 3 * len(claims)
    await asyncio.gather(*(unprepared(plugin, claim) for claim in claims for plugin in pair))
    assert pair.leftovers() == []


@pytest.mark.parametrize(
    ("order", "device", "by"),
    [
        ("old-new", SMALL, "holder"),
        ("old-new", WHOLE, "waiter"),
        ("new-old", SMALL, "waiter"),
        ("new-old", WHOLE, "holder"),
    ],
)
async def test_a_device_that_the_other_holds_is_waited_for(
    pair: Pair, cluster: Cluster, order: str, device: str, by: str
) -> None:
    """The call waits, whichever process it was sent to, and is served once either has given the device back."""
    first, second = ordered(pair, order)
    holder, waiter = await cluster.new_claim(device), await cluster.new_claim(WHOLE)
    await prepared(first, holder)
    waiting = asyncio.create_task(prepared(second, waiter))
    await until_waiting(second)
    await unprepared(first if by == "holder" else second, holder)
    async with asyncio.timeout(5):
        await waiting
    await unprepared(first, waiter)
    assert pair.leftovers() == []


async def test_a_wait_that_began_alone_sees_what_a_newer_process_does(
    alone: Pair, cluster: Cluster
) -> None:
    """The upgrade comes while a call waits: the device is given back through the new process, and the old one serves the call."""
    holder, waiter = await cluster.new_claim(WHOLE), await cluster.new_claim(WHOLE)
    await prepared(alone.old, holder)
    waiting = asyncio.create_task(prepared(alone.old, waiter))
    await until_waiting(alone.old)
    await alone.new.start()
    await unprepared(alone.new, holder)
    async with asyncio.timeout(5):
        await waiting


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_what_a_process_did_is_known_when_it_is_gone(
    pair: Pair, cluster: Cluster, end: signal.Signals
) -> None:
    """A new version that was taken back: the old one releases what that one prepared, and gives none of it out again."""
    claims = [await cluster.new_claim(name) for name in (SMALL, OTHER)]
    for claim in claims:
        await prepared(pair.new, claim)
    await pair.new.stop(end)
    rivals = [await cluster.new_claim(name) for name in (WHOLE, OTHER)]
    waiting = [asyncio.create_task(prepared(pair.old, rival)) for rival in rivals]
    await until_waiting(pair.old, times=2)
    for claim in claims:
        await unprepared(pair.old, claim)
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
    for rival in rivals:
        await unprepared(pair.old, rival)
    assert pair.leftovers() == []


async def test_what_passed_unseen_is_known_too(alone: Pair, cluster: Cluster) -> None:
    """The new one came, prepared a claim and died between two calls of the old one."""
    await alone.new.start()
    claim = await cluster.new_claim(SMALL)
    await prepared(alone.new, claim)
    await alone.new.stop(signal.SIGKILL)
    await unprepared(alone.old, claim)
    assert alone.leftovers() == []


async def test_a_partition_that_the_other_made_is_ours(alone: Pair, cluster: Cluster) -> None:
    """Made while the new one starts, and after it leads: no slice is written for it."""
    with watched_slices(cluster.server.store) as writes:
        await alone.new.start()
        await prepared(alone.old, await cluster.new_claim(SMALL))
        await until_registered(alone.new)
        await eventually(lambda: LEADS in alone.new.log)
        await prepared(alone.old, await cluster.new_claim(f"{OTHER}-mig-1g-10gb-6"))
        await eventually(lambda: alone.new.log.count("publishes and reconciles") == 1)
        await asyncio.sleep(2)  # a pool that differed would be written by then
    assert writes.kinds == {}


async def test_only_one_of_them_publishes(pair: Pair, cluster: Cluster) -> None:
    """The newest that the kubelet knows: each wiped slice is written by one request."""
    await until_looked(pair, cluster)
    count = len(await cluster.slices())
    before = Counter(cluster.server.requests)
    with watched_slices(cluster.server.store) as writes:
        await wipe(cluster)
        await eventually(cluster.is_published, within_s=2)
        await asyncio.sleep(1)
    assert writes.kinds == {"DELETED": count, "ADDED": count}
    assert (cluster.server.requests - before)["create", "resourceslices"] == count


async def test_the_upgrade_itself_writes_nothing(alone: Pair, cluster: Cluster) -> None:
    """From the start of the new one to the end of the old one."""
    with watched_slices(cluster.server.store) as writes:
        await alone.new.start()
        await eventually(lambda: LAID_DOWN in alone.old.log and LEADS in alone.new.log)
        assert await alone.old.stop() == 0
        await asyncio.sleep(1)
    assert writes.kinds == {}
    assert (alone.old.log + alone.new.log).count(LEADS) == 2


async def test_nobody_else_publishes_before_the_kubelet_knows_the_newer_one(
    folder: Path, cluster: Cluster
) -> None:
    """Without a kubelet the older one goes on: also when it was not registered itself."""
    async with pair_of(folder, cluster) as pair:
        await pair.old.start()
        await eventually(cluster.is_published)
        await pair.new.start()
        await cluster.until_quiet(*pair)
        lists = cluster.server.requests["get", "nodes"]
        await asyncio.sleep(3)
        assert LEADS not in pair.new.log
        assert LAID_DOWN not in pair.old.log
        assert cluster.server.requests["get", "nodes"] == lists


async def test_the_older_one_takes_over_again(pair: Pair, cluster: Cluster) -> None:
    """When the newer one is killed after it served: a slice that is wiped then is back as soon as that was noticed."""
    with watched_slices(cluster.server.store) as writes:
        await pair.new.stop(signal.SIGKILL)
        await eventually(lambda: pair.old.log.count(LEADS) == 2)
        assert writes.kinds == {}
        await wipe(cluster)
        await eventually(cluster.is_published, within_s=2)
    assert set(writes.kinds) == {"DELETED", "ADDED"}


async def test_a_newer_one_that_dies_at_its_start_changes_nothing(
    alone: Pair, cluster: Cluster, kubelet: Kubelet
) -> None:
    """Killed before it served: the older one leads all the time and is called, and nothing was written."""
    claim = await cluster.new_claim(SMALL)
    with watched_slices(cluster.server.store) as writes:
        alone.new.process = await alone.new.launch()
        await eventually((alone.new.data_dir / "instance-new.lock").exists)
        await alone.new.stop(signal.SIGKILL)
        await kubelet.prepare(claim)
        await kubelet.unprepare(claim)
        await asyncio.sleep(1.5)
    assert writes.kinds == {}
    assert LAID_DOWN not in alone.old.log
    assert alone.leftovers() == []


async def test_both_serve_under_sockets_of_their_own(
    pair: Pair, kubelet: Kubelet, cluster: Cluster
) -> None:
    """Registration, claims and health of each: the newest is called, and each removes its own sockets only."""
    assert pair.sockets == {*pair.old.sockets, *pair.new.sockets}
    await eventually(lambda: kubelet.calls_at(pair.new))
    await eventually(lambda: kubelet.health(WHOLE) == "Healthy")
    assert await pair.old.stop() == 0
    assert pair.sockets == set(pair.new.sockets)
    claim = await cluster.new_claim(WHOLE)
    await kubelet.prepare(claim)
    await kubelet.unprepare(claim)
    assert await pair.new.stop() == 0
    assert pair.sockets == set()


async def test_a_call_that_waits_outlives_the_order_to_stop(
    alone: Pair, kubelet: Kubelet, cluster: Cluster
) -> None:
    """It was sent to the old one, which is told to stop: the kubelet does not hang up, and the call is served."""
    holder, waiter = await cluster.new_claim(WHOLE), await cluster.new_claim(WHOLE)
    await kubelet.prepare(holder)
    waiting = asyncio.create_task(kubelet.prepare(waiter))
    await until_waiting(alone.old)
    await alone.new.start()
    await eventually(lambda: kubelet.calls_at(alone.new))
    stopping = asyncio.create_task(alone.old.stop())
    await asyncio.sleep(0.5)
    await kubelet.unprepare(holder)
    async with asyncio.timeout(20):
        assert await waiting
    assert await stopping == 0
    await kubelet.unprepare(waiter)
    assert alone.leftovers() == []


async def test_of_a_drained_node_only_the_last_process_withdraws_the_slices(
    pair: Pair, cluster: Cluster
) -> None:
    """The one that leads is taken back while the other lives: the slices stay until that one ends, too."""
    for item in await cluster.slices():
        note = {"metadata": {"annotations": {DRAIN_ANNOTATION: "2026-01-01T00:00:00Z"}}}
        await cluster.api.patch(RESOURCE_SLICE, item["metadata"]["name"], note)
    await eventually(lambda: "draining" in pair.new.log)
    assert await pair.new.stop() == 0
    assert await cluster.slices()
    await eventually(lambda: pair.old.log.count(LEADS) == 2)
    await eventually(lambda: "draining" in pair.old.log)
    assert await pair.old.stop() == 0
    assert await cluster.slices() == []
