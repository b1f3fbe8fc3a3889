"""The wall clock jumps by a day, as when a node's clock is set: nothing that is decided depends on it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.faults.interleavings import run_case
from tests.faults.outage_node import OutageNode, virtual_parts
from tests.faults.virtual_time import run
from tests.kubelet_plugin.conftest import CountingApi, NewClaim, NodePlugin, machine_of, ref
from tests.passing_time import AheadClock

DAY_S = 86_400.0
WHOLE, SMALL = "gpu-0000-1b-00-0", "gpu-0000-1b-00-0-mig-1g-10gb-6"


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> AheadClock:
    """`time.time` with a jump that a test sets; the monotonic clock goes on as it did."""
    wall = AheadClock(time.time)
    monkeypatch.setattr(time, "time", wall)
    monkeypatch.setattr(time, "time_ns", lambda: int(wall() * 1e9))
    return wall


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S])
@pytest.mark.parametrize("seed", range(5))
def test_a_jump_changes_no_decision(wall: AheadClock, jump_s: float, seed: int) -> None:
    """The same schedule of calls, deletions and deaths ends the same, call by call, with and without it."""
    expected = run_case(seed)
    wall.ahead_s = jump_s
    assert run_case(seed) == expected
    assert expected[0] == []


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S])
def test_a_jump_writes_no_slice_and_releases_nothing(
    wall: AheadClock, jump_s: float, tmp_path: Path
) -> None:
    """An hour after it the slices and claims are what they were; a claim is replayed, given back and prepared as before."""

    async def main() -> None:
        node = OutageNode(tmp_path, machine_of("H100-SXM5-80GB", 1))
        await node.start()
        claim = await node.cluster.new_claim(SMALL)
        assert await node.prepare(claim) == ""
        before = await node.cluster.slices()
        wall.ahead_s = jump_s
        await asyncio.sleep(3600)
        assert await node.cluster.slices() == before
        assert list(node.plugin.state.records) == [ref(claim).uid]
        assert await node.prepare(claim) == ""
        assert await node.unprepare(claim) == ""
        assert await node.prepare(await node.cluster.new_claim(WHOLE)) == ""
        await node.stop()

    with virtual_parts():
        run(main())


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S])
async def test_a_restart_after_a_jump_keeps_every_claim(
    wall: AheadClock, jump_s: float, tmp_path: Path, api: CountingApi, new_claim: NewClaim
) -> None:
    """Whatever time its records' files have: what counts is the boot, and it is the same one."""
    machine = machine_of("H100-SXM5-80GB", 1)
    first = await NodePlugin(tmp_path, machine, api).start()
    claim = new_claim(SMALL)
    answer = await first.prepare(claim)
    wall.ahead_s = jump_s
    second = await NodePlugin(tmp_path, machine, api).start()
    assert await second.prepare(claim) == answer
    await second.unprepare(claim)
    assert second.leftovers() == []
