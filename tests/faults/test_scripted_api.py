"""The API server misbehaves, one fault at a time, beside a real plugin process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dra_driver.model.kinds import RESOURCE_SLICE
from tests.faults.scripted_api import Fault, ScriptedApi, scripted
from tests.process.conftest import Cluster, Plugin, eventually

WHOLE = "gpu-0000-1b-00-0"
CLAIMS, SLICES = "/resourceclaims/", "/resourceslices"


@pytest.fixture
async def script(idle: Plugin, cluster: Cluster) -> AsyncIterator[ScriptedApi]:
    """Between the plugin and the API server; the plugin is not started yet."""
    async with scripted(cluster.server.url) as between:
        idle.settings["server"] = between.url
        yield between


BRIEF = [
    Fault("drop", CLAIMS, times=3),
    Fault("reset", CLAIMS, times=3),
    Fault("cut", CLAIMS, times=2),
    Fault("status", CLAIMS, times=2, status=500),
    Fault("status", CLAIMS, times=1, status=429, retry_after_s=2),
    Fault("delay", CLAIMS, delay_s=2.0),
]


@pytest.mark.parametrize("fault", BRIEF, ids=lambda one: f"{one.kind}-{one.status}")
async def test_a_claim_is_prepared_in_the_same_call(
    idle: Plugin, cluster: Cluster, script: ScriptedApi, fault: Fault
) -> None:
    """The GET of its claim fails for a moment: the call asks again, and the kubelet hears of nothing."""
    await idle.start()
    await eventually(cluster.is_published)
    claim = await cluster.new_claim(WHOLE)
    script.faults.append(Fault(**{name: getattr(fault, name) for name in fault.__slots__}))
    answers = await idle.prepare(claim)
    assert [one.error for one in answers.values()] == [""]
    assert set(script.met) == {fault.kind}
    assert sum(CLAIMS in target for _, target in script.seen) == 1 + (
        fault.times if fault.kind != "delay" else 0
    )


PUBLISHING = [
    Fault("drop", SLICES, "POST", times=2),
    Fault("reset", SLICES, "POST", times=2),
    Fault("cut", SLICES, "POST", times=1),
    Fault("status", SLICES, "POST", times=2, status=429, retry_after_s=1),
    Fault("status", SLICES, "POST", times=1, status=409),
    Fault("status", SLICES, "GET", times=2, status=500),
    Fault("delay", SLICES, "POST", delay_s=1.0),
    Fault("gone", "watch=", "GET", times=3),
]


@pytest.mark.parametrize("fault", PUBLISHING, ids=lambda one: f"{one.kind}-{one.status}")
async def test_slices_are_published_whatever_meets_their_writes(
    idle: Plugin, cluster: Cluster, script: ScriptedApi, fault: Fault
) -> None:
    """Every one of them, once: a write whose answer was lost is not made a second time under another name."""
    script.faults.append(Fault(**{name: getattr(fault, name) for name in fault.__slots__}))
    await idle.start()
    await eventually(cluster.is_published, within_s=40)
    await eventually(lambda: fault.kind in script.met)
    slices = await cluster.slices()
    assert len({item["metadata"]["name"] for item in slices}) == len(slices)
    await cluster.api.delete(RESOURCE_SLICE, slices[0]["metadata"]["name"])
    await eventually(cluster.is_published, within_s=40)


async def test_a_connection_that_stays_open_and_silent_is_given_up(
    idle: Plugin, cluster: Cluster, script: ScriptedApi
) -> None:
    """Half-open, as behind a router that forgot it: the call ends in the kubelet's time, and the next one works."""
    await idle.start()
    await eventually(cluster.is_published)
    claim = await cluster.new_claim(WHOLE)
    script.faults.append(Fault("half-open", CLAIMS))
    answers = await idle.prepare(claim)
    assert [one.error for one in answers.values()] == [""]
    assert script.met == ["half-open"]


async def test_an_api_server_that_drops_fields_gets_no_partitions(
    idle: Plugin, cluster: Cluster, script: ScriptedApi
) -> None:
    """What was written is compared with the answer: without counters nothing is published that could be given out twice."""
    stripped = ("sharedCounters", "consumesCounters")
    script.faults.append(Fault("strip", SLICES, "POST", times=10**6, fields=stripped))
    await idle.start()

    async def is_plain() -> bool:
        slices = await cluster.slices()
        names = [one["name"] for item in slices for one in item["spec"].get("devices", ())]
        return bool(names) and not any("-mig-" in name for name in names)

    await eventually(is_plain, within_s=40)
    assert "strip" in script.met
