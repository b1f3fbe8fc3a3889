"""What GPUs do, from the hardware to the page that is scraped."""

from __future__ import annotations

import asyncio
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dra_driver.config.machine import Machine
from dra_driver.model.activity import Activity
from dra_driver.model.errors import VendorError
from dra_driver.observe.containers import Container
from kubelet_plugin.activity import IDLE_ROUNDS, ActivityWatch
from kubelet_plugin.device_readings import DeviceReading, device_readings
from kubelet_plugin.locks import gpu_lock
from kubelet_plugin.metrics import Levels, PluginMetrics
from tests.kubelet_plugin.conftest import POOL, CountingApi, NewClaim, NodePlugin, machine_of
from tests.kubelet_plugin.second_process import second_process
from tests.passing_time import pass_time
from tests.process.conftest import eventually
from tests.vendors.faults import set_faults

FIRST, SECOND = "0000:1b:00.0", "0000:43:00.0"
WHOLE, OTHER = "gpu-0000-1b-00-0", "gpu-0000-43-00-0"
SMALL = f"{WHOLE}-mig-1g-10gb-6"
MEASURED_TWICE = IDLE_ROUNDS + 2
"""Rounds in which either GPU was measured twice, idle or not."""
TIMEOUT_S = 30.0
BUSY = {"sm": [0.5], "memory_mib": 1024, "processes": [{"pid": 42, "memory_mib": 512}]}


class Measured:
    """A node whose simulated hardware works as a test says, with a clock of its own, and its page."""

    def __init__(self, plugin: NodePlugin) -> None:
        self.plugin = plugin
        self.now = 6000.0
        self._meter_clock()
        self.metrics = PluginMetrics(version="0", levels=self._levels)

    @property
    def watch(self) -> ActivityWatch:
        return self.plugin.node.activity

    def load(self, **by_device: dict[str, Any]) -> None:
        """`first`, `second`, or the UUID of a MIG device with underscores for dashes."""
        names = {"first": FIRST, "second": SECOND}
        loads = {names.get(key, key.replace("_", "-")): one for key, one in by_device.items()}
        (self.plugin.folder / "hardware/activity.json").write_text(json.dumps(loads))

    async def look(self, rounds: int = 1) -> None:
        for _ in range(rounds):
            self.now += 10
            await self.watch.look()

    def series(self, name: str) -> dict[str, float]:
        """The family's series by their labels."""
        found = {}
        for line in self.metrics.page().splitlines():
            series, _, value = line.rpartition(" ")
            if series.startswith(f"dra_device_{name}{{"):
                found[series.partition("{")[2].rstrip("}")] = float(value)
        return found

    def taken_at(self) -> dict[str, float]:
        """When each GPU was measured last."""
        return {at: seen.activities[0].taken_at for at, seen in self.watch.seen.items()}

    def faults(self, **first: Any) -> None:
        """The first GPU's, from now on."""
        set_faults(self.plugin.folder / "hardware", {FIRST: first} if first else {})

    def waits_for_the_first(self) -> bool:
        """Whether this round has measured the second GPU, and the first one is being asked."""
        is_asked = self.plugin.node.survey._calls.is_busy(FIRST)
        return is_asked and self.taken_at()[SECOND] == self.now

    def _meter_clock(self) -> None:
        backend: Any = self.plugin.backend
        backend._meter._clock = lambda: self.now
        self.plugin.nvml.activity._clock = lambda: self.now

    def _levels(self) -> Levels:
        return Levels(devices=device_readings(self.plugin.state, self.watch))


@pytest.fixture
async def measured(tmp_path: Path, machine: Machine, api: CountingApi) -> Measured:
    return Measured(await NodePlugin(tmp_path, machine, api, timeout_s=TIMEOUT_S).start())


def device(gpu: str, partition: str = "") -> str:
    return f'gpu="{gpu}",partition="{partition}"'


async def test_figures_are_on_the_page_with_their_time(measured: Measured) -> None:
    """By GPU, in base units, with the moment of the measurement; what idles says 0."""
    measured.load(first=BUSY)
    await measured.look(MEASURED_TWICE)
    assert measured.series("sm_activity_ratio") == {device(WHOLE): 0.5, device(OTHER): 0}
    assert measured.series("memory_used_bytes")[device(WHOLE)] == 1 << 30
    assert measured.series("processes") == {device(WHOLE): 1, device(OTHER): 0}
    assert measured.series("activity_timestamp_seconds")[device(WHOLE)] == measured.now
    assert measured.series("throttled")[f'{device(WHOLE)},reason="power"'] == 0


async def test_what_is_not_known_has_no_series(tmp_path: Path, api: CountingApi) -> None:
    """An A100 has no averages: the family is on the page without a sample, which PromQL tells from 0."""
    plugin = await NodePlugin(tmp_path, machine_of("A100-SXM4-40GB"), api).start()
    measured = Measured(plugin)
    await measured.look(MEASURED_TWICE)
    assert measured.series("sm_activity_ratio") == {}
    assert len(measured.series("memory_used_bytes")) == 2


async def test_a_claims_partition_is_measured_from_its_first_round_on(
    measured: Measured, new_claim: NewClaim
) -> None:
    """Under the name that is published, joined to claim and pod; gone from the page the moment that the claim is."""
    claim = new_claim(SMALL)
    await measured.plugin.prepare(claim)
    measured.plugin.pods = {("default", "claim-1"): frozenset({"b", "a"})}
    [uuid] = measured.plugin.nvml.mig_uuids(measured.plugin.nvml.gpu_by_address(FIRST)).values()
    measured.load(**{uuid.replace("-", "_"): BUSY})
    await measured.look(2)
    assert measured.series("sm_activity_ratio")[device(WHOLE, SMALL)] == 0.5
    assert device(WHOLE) not in measured.series("utilization_ratio")
    labels = f'{device(WHOLE, SMALL)},pool="{POOL}",profile="1g.10gb",uuid="{uuid}"'
    assert labels in measured.series("info")
    users = f'{device(WHOLE, SMALL)},namespace="default",claim="claim-1"'
    assert set(measured.series("claim_info")) == {f'{users},pod="a"', f'{users},pod="b"'}
    await measured.plugin.unprepare(claim)
    assert device(WHOLE, SMALL) not in measured.series("sm_activity_ratio")
    assert measured.series("claim_info") == {}


async def test_partitions_of_others_are_measured(tmp_path: Path, api: CountingApi) -> None:
    """One that an administrator made has its figures, and no claim."""
    machine = machine_of("H100-SXM5-80GB", 1, instances=[{"profile": "3g.40gb", "start": 4}])
    measured = Measured(await NodePlugin(tmp_path, machine, api).start())
    await measured.look(MEASURED_TWICE)
    assert measured.series("sm_activity_ratio")[device(WHOLE, f"{WHOLE}-mig-3g-40gb-4")] == 0
    assert measured.series("claim_info") == {}


async def test_a_made_anew_partition_has_none_of_the_former_ones_figures(
    measured: Measured, new_claim: NewClaim
) -> None:
    """The same numbers and place are another device: it has no series before it was measured itself."""
    first, second = new_claim(SMALL), new_claim(SMALL)
    await measured.plugin.prepare(first)
    await measured.look(2)
    assert device(WHOLE, SMALL) in measured.series("memory_used_bytes")
    await measured.plugin.unprepare(first)
    await measured.plugin.prepare(second)
    assert device(WHOLE, SMALL) not in measured.series("memory_used_bytes")
    await measured.look()
    assert device(WHOLE, SMALL) in measured.series("memory_used_bytes")


async def test_a_monitor_is_no_user(measured: Measured, new_claim: NewClaim) -> None:
    """Who only looks neither holds the GPU nor makes it worth a look."""
    result = {"request": "r", "driver": "gpu.dra-driver.dev", "pool": POOL, "adminAccess": True}
    await measured.plugin.prepare(new_claim(result | {"device": f"{WHOLE}-monitor"}))
    await measured.look(2)
    assert measured.series("claim_info") == {}
    assert measured.taken_at()[FIRST] == 6010


async def test_containers_are_named_where_they_are_known(measured: Measured) -> None:
    """Processes of the host, and those that /proc does not tell about, are counted only."""
    container = Container(pod_uid="3b9aee5a-1f0c-4d5e-8a51-0a6c5b9f1d20", id="ab" * 32)
    measured.plugin.containers[42] = container
    measured.load(first={"processes": [{"pid": 42}, {"pid": 43}]})
    await measured.look()
    assert measured.series("processes")[device(WHOLE)] == 2
    [labels] = measured.series("container_info")
    assert labels == f'{device(WHOLE)},pod_uid="{container.pod_uid}",container_id="{container.id}"'


async def test_processes_of_a_namespace_of_its_own_are_not_counted(measured: Measured) -> None:
    """A driver keeps quiet about processes that the plugin cannot see: none is not what there are."""
    measured.plugin.containers.are_seen = False
    measured.load(first=BUSY)
    await measured.look()
    assert device(WHOLE) in measured.series("memory_used_bytes")
    assert measured.series("processes") == {}


async def test_idle_gpus_are_measured_seldom(measured: Measured, new_claim: NewClaim) -> None:
    """In one round of six; a claim or a process brings every round, and its end ends that."""
    claim = new_claim(WHOLE)
    await measured.plugin.prepare(claim)
    measured.load(second=BUSY)
    await measured.look(IDLE_ROUNDS)
    assert measured.taken_at() == {FIRST: 6060, SECOND: 6060}
    await measured.plugin.unprepare(claim)
    measured.load()
    await measured.look(IDLE_ROUNDS)
    assert measured.taken_at() == {FIRST: 6070, SECOND: 6070}
    await measured.look()
    assert measured.taken_at() == {FIRST: 6130, SECOND: 6130}


async def test_pods_are_asked_for_when_claims_change(
    measured: Measured, new_claim: NewClaim
) -> None:
    """Not at all without claims, and again only now and then once all are known."""
    await measured.look(2)
    assert measured.plugin.pod_questions == 0
    await measured.plugin.prepare(new_claim(WHOLE))
    await measured.look(2)
    assert measured.plugin.pod_questions == 2, "the claim's pods are not known yet"
    measured.plugin.pods = {("default", "claim-1"): frozenset({"a"})}
    await measured.look(2)
    assert measured.plugin.pod_questions == 3
    await measured.look(IDLE_ROUNDS)
    assert measured.plugin.pod_questions == 4


async def test_claims_that_no_pod_uses_are_not_asked_for_for_ever(
    measured: Measured, new_claim: NewClaim
) -> None:
    """A pod that has ended, say, keeps its claim: after some rounds that is one question in six."""
    await measured.plugin.prepare(new_claim(WHOLE))
    await measured.look(IDLE_ROUNDS)
    assert measured.plugin.pod_questions == IDLE_ROUNDS
    await measured.look(2 * IDLE_ROUNDS)
    assert measured.plugin.pod_questions == IDLE_ROUNDS + 2


async def test_a_claim_of_the_same_name_has_pods_of_its_own(
    measured: Measured, new_claim: NewClaim
) -> None:
    """Those of the former one are not told for it, not even until the next round."""
    claim, anew = new_claim(WHOLE), new_claim(WHOLE)
    await measured.plugin.prepare(claim)
    measured.plugin.pods = {("default", "claim-1"): frozenset({"former"})}
    await measured.look()
    await measured.plugin.unprepare(claim)
    anew["metadata"]["name"] = "claim-1"
    measured.plugin.api.claims["claim-1"] = anew
    await measured.plugin.prepare(anew)
    measured.plugin.pods = {("default", "claim-1"): frozenset({"present"})}
    users = f'{device(WHOLE)},namespace="default",claim="claim-1"'
    assert set(measured.series("claim_info")) == {f'{users},pod=""'}
    await measured.look()
    assert set(measured.series("claim_info")) == {f'{users},pod="present"'}


@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "fails"])
async def test_a_sick_gpu_has_no_series_and_hides_no_other(
    measured: Measured, *, hangs: bool
) -> None:
    """No data is not idleness: its figures go, the other's stay, and healed it is measured again."""
    await measured.look(2)
    assert set(measured.series("power_watts")) == {device(WHOLE), device(OTHER)}
    measured.faults(**({"hang_s": 60} if hangs else {"error": "GPU_IS_LOST"}))
    looking = asyncio.create_task(measured.look(IDLE_ROUNDS))
    if hangs:
        await eventually(measured.waits_for_the_first)
        pass_time(TIMEOUT_S)
    await looking
    assert set(measured.series("power_watts")) == {device(OTHER)}
    await measured.plugin.node.survey.look()
    await measured.look(IDLE_ROUNDS)
    assert set(measured.series("power_watts")) == {device(OTHER)}
    measured.faults()
    async with asyncio.timeout(20):
        while FIRST not in measured.watch.seen:
            await measured.plugin.node.survey.look()
            await measured.look()
    assert set(measured.series("power_watts")) == {device(WHOLE), device(OTHER)}


async def test_a_gpu_that_is_unplugged_has_no_series(measured: Measured) -> None:
    """They go with the device."""
    await measured.look(2)
    measured.faults(absent=True)
    await measured.plugin.node.survey.look()
    assert set(measured.series("power_watts")) == {device(OTHER)}


async def test_nothing_is_measured_while_hardware_changes(measured: Measured) -> None:
    """The GPU is left alone for that round, and keeps its last figures with their time; the other is measured."""
    measured.load(first=BUSY, second=BUSY)
    await measured.look(2)
    async with measured.plugin.node.survey._locks.held(gpu_lock(FIRST)):
        await measured.look()
    assert measured.taken_at() == {FIRST: 6020, SECOND: 6030}
    await measured.look()
    assert measured.taken_at() == {FIRST: 6040, SECOND: 6040}


async def test_a_change_of_another_process_is_left_alone_too(
    measured: Measured, tmp_path: Path
) -> None:
    """Also where the lock is elsewhere for long: nobody waits, and no wait is left behind."""
    measured.load(first=BUSY)
    await measured.look()
    async with second_process(tmp_path) as other:
        await other.do("lock", gpu_lock(FIRST))
        await measured.look(2)
        assert measured.taken_at()[FIRST] == 6010
        await other.do("unlock")
    async with measured.plugin.node.survey._locks.held(gpu_lock(FIRST)):
        pass  # it has come by now
    await measured.look()
    assert measured.taken_at()[FIRST] == 6040


async def test_nobody_waits_behind_a_call_that_hangs(measured: Measured) -> None:
    """A GPU that is being asked is left alone, so its lock is free for the look that finds out that it hangs."""
    measured.load(first=BUSY)
    await measured.look()
    measured.faults(hang_s=60)
    survey = measured.plugin.node.survey
    ping = asyncio.create_task(survey._calls.ping(POOL, FIRST))
    await asyncio.sleep(0)
    await measured.look()
    assert measured.taken_at()[FIRST] == 6010
    assert not ping.done()
    pass_time(TIMEOUT_S)
    with pytest.raises(VendorError):
        await ping
    measured.faults()


async def test_only_the_leading_process_measures(measured: Measured) -> None:
    """One that has handed over says nothing any more: what it could say, another one says too."""
    leads, asleep, rounds = [True], asyncio.Semaphore(0), asyncio.Semaphore(0)

    class Clock:
        def monotonic(self) -> float:
            return 0.0

        async def sleep(self, seconds: float) -> None:
            assert seconds == 7
            asleep.release()
            await rounds.acquire()

    running = asyncio.create_task(measured.watch.run(7, Clock(), lambda: leads[0]))
    await asleep.acquire()
    for leading, addresses in ((True, {FIRST, SECOND}), (False, set()), (True, {FIRST, SECOND})):
        leads[0] = leading
        rounds.release()
        async with asyncio.timeout(10):
            await asleep.acquire()
        assert measured.watch.seen.keys() == addresses
    running.cancel()


def test_series_of_a_full_node_are_bounded() -> None:
    """A device has fewer than twenty, whatever is known of it."""
    figures: dict[str, Any] = {one.name: 0 for one in fields(Activity)}
    activity = Activity(**figures | {"uuid": "u", "throttled": frozenset(), "processes": ()})
    reading = DeviceReading(
        pool=POOL,
        gpu=WHOLE,
        partition="",
        profile="",
        activity=activity,
        users=(("a", "b", "c"),),
        containers={Container(pod_uid="u", id="i")},
    )

    def lines(levels: Levels) -> int:
        return len(PluginMetrics(version="0", levels=lambda: levels).page().splitlines())

    assert lines(Levels(devices=(reading,))) - lines(Levels()) == 18
