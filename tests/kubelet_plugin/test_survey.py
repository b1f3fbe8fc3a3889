"""Looks at hardware that fails, hangs, comes and goes: each GPU's trouble is its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dra_driver.config.machine import Machine
from dra_driver.model.device import Gpu
from dra_driver.model.errors import VendorError
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.vendors.nvidia.simulated_gpu import SimulatedGpu
from kubelet_plugin.health import HealthReport
from kubelet_plugin.health_service import Health, HealthBoard
from kubelet_plugin.locks import gpu_lock
from kubelet_plugin.node import Node
from kubelet_plugin.survey import PINGS_PER_LISTING
from tests.kubelet_plugin.conftest import POOL, CountingApi, NewClaim, NodePlugin, machine_of
from tests.kubelet_plugin.second_process import second_process
from tests.passing_time import pass_time
from tests.vendors.faults import set_faults

FIRST, SECOND = "0000:1b:00.0", "0000:43:00.0"
WHOLE, OTHER = "gpu-0000-1b-00-0", "gpu-0000-43-00-0"
PATIENCE_S = 30.0


class Broken:
    """A plugin whose hardware a test breaks; its deadlines come when `give_up` says so."""

    def __init__(self, folder: Path, plugin: NodePlugin) -> None:
        self._folder = folder / "hardware"
        self.plugin = plugin
        self._board = HealthBoard()

    def faults(self, **by_device: dict[str, Any]) -> None:
        """These and no others, from now on; keyword `first` is the first GPU."""
        names = {"first": FIRST, "second": SECOND, "driver": "driver"}
        set_faults(self._folder, {names[key]: one for key, one in by_device.items()})

    async def give_up(self, look: Coroutine[Any, Any, Any], on: Callable[[], bool]) -> None:
        """The look's deadline comes when that is so, and no GPU but the first is waited for."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(look)
            async with asyncio.timeout(10):
                await asyncio.sleep(0)
                while not on() or set(self.node.survey.pending) - {FIRST}:  # noqa: ASYNC110 (nobody tells)
                    await asyncio.sleep(0.01)
            pass_time(PATIENCE_S)

    def hangs(self, key: str = FIRST) -> bool:
        """Whether a call is under way of that GPU, or of a vendor's driver."""
        return self.node.survey._calls.is_busy(key)

    def is_elsewhere(self) -> bool:
        """Whether another process has the first GPU, which is waited for."""
        return self.node.survey._locks.is_elsewhere(gpu_lock(FIRST))

    @property
    def node(self) -> Node:
        return self.plugin.node

    @property
    def sound(self) -> list[str]:
        """The GPUs that can be used."""
        return [gpu.pci_address for gpu in self.plugin.state.inventories[POOL].gpus]

    @property
    def faulty(self) -> dict[str, str]:
        """What is wrong with the others."""
        faults = self.plugin.state.inventories[POOL].faults
        return {fault.pci_address: fault.message for fault in faults}

    @cached_property
    def _reported(self) -> HealthReport:
        return HealthReport(self.plugin.state, self._board)

    @property
    def health(self) -> set[Health]:
        """What the kubelet is told of all devices, each kind once."""
        self._reported.refresh()
        return {device.health for device in self._board.current.values()}


@pytest.fixture
async def broken(tmp_path: Path, machine: Machine, api: CountingApi) -> Broken:
    plugin = await NodePlugin(tmp_path, machine, api, timeout_s=PATIENCE_S).start()
    return Broken(tmp_path, plugin)


@pytest.mark.parametrize("way", ["look", "ping"])
async def test_a_gpu_that_hangs_hides_only_itself(broken: Broken, way: str) -> None:
    """It becomes a fault with a reason; the other is seen; when it answers again it is usable."""
    look = getattr(broken.node.survey, way)
    broken.faults(first={"hang_s": 60})
    await broken.give_up(look(), broken.hangs)
    assert broken.sound == [SECOND]
    assert FIRST in broken.faulty[FIRST]
    await look()
    assert broken.sound == [SECOND]
    broken.faults()
    await until_it_answers(broken)
    await look()
    assert (broken.sound, broken.faulty) == ([FIRST, SECOND], {})


async def test_a_gpu_that_is_waited_for_delays_nothing_that_comes_after(broken: Broken) -> None:
    """Pings and looks see what happens to the other GPU meanwhile; of the one that hangs nothing is known yet, and it is not said to have been seen."""
    survey, report = broken.node.survey, HealthReport(broken.plugin.state, board := HealthBoard())
    report.refresh(survey.pending)
    before_s = board.seen_at_s((POOL, WHOLE))
    broken.faults(first={"hang_s": 60}, second={"error": "GPU_IS_LOST"})
    waiting = asyncio.create_task(survey.ping())
    await until_only_pending(broken, FIRST)
    assert (broken.sound, list(broken.faulty)) == ([FIRST], [SECOND])
    broken.faults(first={"hang_s": 60})
    await survey.ping()
    assert (broken.sound, broken.faulty) == ([FIRST, SECOND], {})
    await survey.look()
    report.refresh(survey.pending)
    assert board.seen_at_s((POOL, WHOLE)) == before_s < board.seen_at_s((POOL, OTHER))
    assert not waiting.done()
    broken.faults()
    await waiting
    assert (broken.sound, set(survey.pending)) == ([FIRST, SECOND], set())


async def test_what_a_look_left_out_is_looked_at_when_it_answers(
    broken: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ping was waiting for the GPU: its partitions are not left to the next look, five minutes later."""
    survey, read, seen = broken.node.survey, broken.node.survey._calls.read, Counter[str]()

    async def counted(pool: str, address: str) -> Gpu:
        seen[address] += 1
        return await read(pool, address)

    monkeypatch.setattr(survey._calls, "read", counted)
    broken.faults(first={"hang_s": 60})
    waiting = asyncio.create_task(survey.ping())
    await until_only_pending(broken, FIRST)
    await survey.look()
    assert seen == {SECOND: 1}
    broken.faults()
    await waiting
    assert seen == {FIRST: 1, SECOND: 1}
    await survey.ping()
    assert seen == {FIRST: 1, SECOND: 1}


async def test_a_look_that_fails_after_reading_has_not_seen_the_gpu(
    broken: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing says what its last call found: it is neither a fault nor seen, until the next round asks it."""
    survey = broken.node.survey

    async def fail(pool: str, address: str) -> None:
        raise VendorError("it hangs")

    with monkeypatch.context() as patched:
        patched.setattr(survey._calls, "ping", fail)
        await survey.look()
    assert (broken.sound, set(survey.pending)) == ([FIRST, SECOND], {FIRST, SECOND})
    await survey.ping()
    assert not survey.pending


async def until_only_pending(broken: Broken, address: str) -> None:
    """All other GPUs have answered, and were looked at if their answer was news."""
    for _ in range(1000):
        if broken.node.survey.pending == {address}:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not {address} alone is waited for: {broken.node.survey.pending}")


async def until_it_answers(broken: Broken, key: str = FIRST) -> None:
    """The call that hung has come to its end: of a GPU, or of a vendor's driver."""
    calls = broken.node.survey._calls
    for _ in range(200):
        try:
            await calls.finished(key)
        except VendorError:
            await broken.plugin.clock.sleep(0.02)
        else:
            return
    raise AssertionError("it never comes back")


@pytest.mark.parametrize("way", ["look", "ping"])
async def test_a_gpu_that_is_lost_hides_only_itself(broken: Broken, way: str) -> None:
    """An error instead of silence; it comes back when the error is gone."""
    look = getattr(broken.node.survey, way)
    broken.faults(second={"error": "GPU_IS_LOST"})
    await look()
    assert broken.sound == [FIRST]
    assert list(broken.faulty) == [SECOND]
    broken.faults()
    await look()
    assert broken.sound == [FIRST, SECOND]


@pytest.mark.parametrize("way", ["look", "ping"])
async def test_a_gpu_that_is_unplugged_is_gone_and_plugged_in_is_back(
    broken: Broken, way: str
) -> None:
    """Neither usable nor a fault while it is away; its devices are usable again afterwards."""
    look = getattr(broken.node.survey, way)
    broken.faults(first={"absent": True})
    await look()
    assert (broken.sound, broken.faulty) == ([SECOND], {})
    broken.faults()
    await look()
    assert (broken.sound, broken.faulty) == ([FIRST, SECOND], {})


async def test_a_gpu_that_is_new_is_found_by_one_of_the_next_pings(broken: Broken) -> None:
    """The driver is asked for its GPUs now and then, as long as those that are known answer."""
    survey = broken.node.survey
    broken.faults(first={"absent": True})
    await survey.look()
    for _ in range(2 * PINGS_PER_LISTING):
        await survey.ping()
    broken.faults()
    pings = 0
    while FIRST not in broken.sound:
        await survey.ping()
        pings += 1
    assert pings <= PINGS_PER_LISTING


async def test_a_ping_lists_seldom_and_after_any_trouble(
    broken: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To ask the driver costs as much as to ask all its GPUs."""
    survey, listings = broken.node.survey, 0
    addresses = survey._calls.addresses

    async def counted(pool: str) -> tuple[str, ...]:
        nonlocal listings
        listings += 1
        return await addresses(pool)

    monkeypatch.setattr(survey._calls, "addresses", counted)
    for _ in range(3 * PINGS_PER_LISTING):
        await survey.ping()
    assert listings == 3
    broken.faults(first={"error": "GPU_IS_LOST"})
    await survey.ping()
    listings = 0
    await survey.ping()
    assert listings == 1


async def test_a_gpu_in_place_of_another_is_told_by_its_own_devices(
    broken: Broken, tmp_path: Path, api: CountingApi
) -> None:
    """A board of another kind at the same address has other partitions, and the kubelet hears of those alone."""
    board = HealthBoard()
    report = HealthReport(broken.plugin.state, board)
    report.refresh()
    former = {name for _, name in board.current}
    other = await NodePlugin(tmp_path / "other", machine_of("A30", 2), api).start()
    broken.plugin.state.observe(other.state.inventories[POOL])
    report.refresh()
    names = {name for _, name in board.current}
    assert any("mig-4g-24gb" in name for name in names)
    assert not any("mig-7g-80gb" in name for name in names)
    assert any("mig-7g-80gb" in name for name in former)


@pytest.mark.parametrize("way", ["look", "ping"])
@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
async def test_of_a_driver_that_fails_no_gpu_is_known(
    broken: Broken, way: str, *, hangs: bool
) -> None:
    """Its GPUs are not gone for that; each is a fault with the reason, its health unknown, until the driver answers again."""
    look = getattr(broken.node.survey, way)
    assert broken.health == {Health.HEALTHY}
    broken.faults(driver={"hang_s": 60} if hangs else {"error": "UNKNOWN"})
    await (broken.give_up(look(), lambda: broken.hangs("nvidia")) if hangs else look())
    assert (broken.sound, list(broken.faulty)) == ([], [FIRST, SECOND])
    assert FIRST in broken.faulty[FIRST]
    assert broken.health == {Health.UNKNOWN}
    broken.faults()
    await until_it_answers(broken, "nvidia")
    await look()
    assert (broken.sound, broken.faulty) == ([FIRST, SECOND], {})
    assert broken.health == {Health.HEALTHY}


async def test_a_gpu_that_is_sick_after_its_driver_came_back_says_so(broken: Broken) -> None:
    """The next ping already tells its own trouble from the driver's: unhealthy, not unknown."""
    assert broken.health == {Health.HEALTHY}
    broken.faults(driver={"error": "UNKNOWN"})
    await broken.node.survey.ping()
    broken.faults(first={"error": "GPU_IS_LOST"})
    await broken.node.survey.ping()
    assert broken.sound == [SECOND]
    assert "GPU_IS_LOST" in broken.faulty[FIRST]
    assert broken.health == {Health.HEALTHY, Health.UNHEALTHY}


async def test_a_claim_waits_for_a_driver_that_comes_back(
    broken: Broken, new_claim: NewClaim
) -> None:
    """While its pool's GPUs cannot be listed nothing is given out; it is served in the same call afterwards."""
    broken.faults(driver={"absent": True})
    await broken.node.survey.ping()
    call = asyncio.create_task(broken.plugin.prepare(new_claim(WHOLE)))
    done, _ = await asyncio.wait([call], timeout=0.1)
    assert not done
    broken.faults()
    await broken.node.survey.ping()
    assert len(await call) == 1


@pytest.mark.parametrize("way", ["look", "ping"])
@pytest.mark.parametrize("odd", [OSError(5, "odd"), ValueError("odd")], ids=["os", "value"])
async def test_an_error_that_is_not_foreseen_hides_only_its_gpu(
    broken: Broken, monkeypatch: pytest.MonkeyPatch, way: str, odd: Exception
) -> None:
    """The fault names the GPU and the error's kind, the log has the traceback, and the look raises nothing."""

    def fail(nvml: SimulatedNvml, address: str) -> SimulatedGpu:
        if address == FIRST:
            raise odd
        return gpu_by_address(nvml, address)

    gpu_by_address = SimulatedNvml.gpu_by_address
    monkeypatch.setattr(SimulatedNvml, "gpu_by_address", fail)
    with capture_logs() as logs:
        await getattr(broken.node.survey, way)()
    assert broken.sound == [SECOND]
    assert f"{FIRST} failed with {type(odd).__name__}" in broken.faulty[FIRST]
    assert any(line.get("exc_info") for line in logs)
    monkeypatch.undo()
    await getattr(broken.node.survey, way)()
    assert broken.sound == [FIRST, SECOND]


async def test_a_journal_that_cannot_be_listed_ends_no_look(
    broken: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside another process its records are read first: what is known stays, the log has the cause, later looks see again."""
    claims = broken.plugin.folder / "claims"
    monkeypatch.setattr(broken.plugin.instance, "peace", lambda: None)
    claims.write_text("no folder")
    with capture_logs() as logs:
        await broken.node.survey.look()
    assert broken.sound == [FIRST, SECOND]
    assert broken.node.survey.pending == {FIRST, SECOND}
    why = {line["gpu"]: line["why"] for line in logs if "why" in line}
    assert why.keys() == {FIRST, SECOND}
    assert str(claims) in why[FIRST]
    await broken.node.survey.ping()
    assert not broken.node.survey.pending
    claims.unlink()
    broken.faults(first={"absent": True})
    await broken.node.survey.look()
    assert broken.sound == [SECOND]


async def test_a_gpu_that_hangs_from_the_start_is_a_fault(
    tmp_path: Path, machine: Machine, api: CountingApi, new_claim: NewClaim
) -> None:
    """The plugin starts, serves the other, and refuses the hung one's claims by the name of the GPU."""
    broken = Broken(tmp_path, NodePlugin(tmp_path, machine, api, timeout_s=PATIENCE_S))
    broken.faults(first={"hang_s": 60})
    await broken.give_up(broken.plugin.start(), broken.hangs)
    assert broken.sound == [SECOND]
    assert len(await broken.plugin.prepare(new_claim(OTHER))) == 1
    with pytest.raises(VendorError, match=FIRST) as refused:
        await broken.plugin.prepare(new_claim(WHOLE), deadline=0.0)
    assert refused.value.retryable
    broken.faults()


async def test_a_claim_waits_for_a_gpu_that_comes_back(broken: Broken, new_claim: NewClaim) -> None:
    """It is served in the same call, as soon as a look finds the GPU sound."""
    broken.faults(first={"error": "GPU_IS_LOST"})
    await broken.node.survey.look()
    call = asyncio.create_task(broken.plugin.prepare(new_claim(WHOLE)))
    done, _ = await asyncio.wait([call], timeout=0.1)
    assert not done
    broken.faults()
    await broken.node.survey.look()
    assert len(await call) == 1


@pytest.mark.parametrize("way", ["look", "ping"])
async def test_a_gpu_that_a_frozen_process_has_hides_only_itself(broken: Broken, way: str) -> None:
    """It is out of sight, its health unknown, the others are looked at; the next look after it was given back sees it."""
    assert broken.health == {Health.HEALTHY}
    broken.faults(first={"absent": True}, second={"error": "GPU_IS_LOST"})
    await broken.node.survey.look()
    async with second_process(broken.plugin.folder) as frozen:
        await frozen.do("lock", gpu_lock(FIRST))
        broken.faults()
        await broken.give_up(getattr(broken.node.survey, way)(), broken.is_elsewhere)
        assert broken.sound == [SECOND]
        assert f"GPU {FIRST}: another plugin process has it" in broken.faulty[FIRST]
        assert broken.health == {Health.HEALTHY, Health.UNKNOWN}
        await frozen.do("unlock")
    async with broken.node.survey._locks.held(gpu_lock(FIRST)):
        pass  # it has come back to this process
    await getattr(broken.node.survey, way)()
    assert (broken.sound, broken.faulty) == ([FIRST, SECOND], {})


async def test_a_gpu_that_a_frozen_process_took_is_waited_for_once(broken: Broken) -> None:
    """What it does to it nobody knows, so it is usable no more; the looks that follow do not wait at all."""
    async with second_process(broken.plugin.folder) as frozen:
        await frozen.do("lock", gpu_lock(FIRST))
        await broken.give_up(broken.node.survey.look(), broken.is_elsewhere)
        assert broken.sound == [SECOND]
        broken.node.survey._timeout_s = 3600.0
        for way in (broken.node.survey.ping, broken.node.survey.look):
            await asyncio.wait_for(way(), 20)
        assert broken.sound == [SECOND]


async def test_a_gpu_that_is_at_work_here_stays_as_it_was(broken: Broken) -> None:
    """A call of this process may take its time with it: the look gives up, and nothing is said against the GPU."""
    survey = broken.node.survey
    async with survey._locks.held(gpu_lock(FIRST)):
        broken.faults(second={"error": "GPU_IS_LOST"})
        await broken.give_up(survey.look(), lambda: survey.pending == {FIRST})
    assert (broken.sound, list(broken.faulty)) == ([FIRST], [SECOND])


async def test_a_first_look_waits_for_what_an_older_process_has_although_a_call_waits_too(
    tmp_path: Path, machine: Machine, api: CountingApi
) -> None:
    """An upgrade under load: given up at once, the GPU would be published as one that cannot be used."""
    plugin = NodePlugin(tmp_path, machine, api)
    plugin.node = plugin.build()
    survey = plugin.node.survey

    async def call() -> None:
        async with survey._locks.held(gpu_lock(FIRST)):
            pass

    async with second_process(tmp_path) as older:
        await older.do("lock", gpu_lock(FIRST))
        waiting = asyncio.create_task(call())
        while not survey._locks.is_elsewhere(gpu_lock(FIRST)):  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)
        look = asyncio.create_task(survey.look())
        done, _ = await asyncio.wait([look], timeout=0.3)
        assert not done
        await older.do("unlock")
        await asyncio.gather(look, waiting)
    inventory = plugin.state.inventories[POOL]
    assert ([gpu.pci_address for gpu in inventory.gpus], inventory.faults) == ([FIRST, SECOND], ())
