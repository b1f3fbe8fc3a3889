"""Calls for claims that meet each other, or hardware that is not as it was: what each is promised stays true."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dra_driver.config.machine import Machine
from dra_driver.model.edits import ContainerEdits
from dra_driver.model.errors import ClaimError, DeviceHeld, VendorError
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import JsonObject
from tests.kubelet_plugin.conftest import POOL, CountingApi, NewClaim, NodePlugin
from tests.kubelet_plugin.test_claims import interposed
from tests.process.conftest import eventually
from tests.vendors.faults import set_faults

WHOLE, OTHER = "gpu-0000-1b-00-0", "gpu-0000-43-00-0"
SMALL = "gpu-0000-1b-00-0-mig-1g-10gb-6"


def admin(device: str) -> JsonObject:
    """A result that only looks."""
    place = {"request": "admin", "driver": DRIVER_NAME, "pool": POOL, "device": device}
    return place | {"adminAccess": True}


async def test_a_prepare_after_an_unprepare_holds_what_it_promised(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """P (busy), U, P: the last one's devices are there when it answers, whatever the unprepare before it destroyed."""
    backend = await interposed(node)
    backend.gate.clear()
    claim = new_claim(SMALL)
    first = asyncio.create_task(node.prepare(claim))
    await eventually(lambda: bool(backend.changes))
    release = asyncio.create_task(node.unprepare(claim))
    await asyncio.sleep(0)
    last = asyncio.create_task(node.prepare(claim))
    await asyncio.sleep(0)
    backend.gate.set()
    ids = await last
    await asyncio.gather(first, release)
    assert node.instances() == [("1g.10gb", 6, True)]
    assert ids[0].rpartition("=")[2] in next((node.folder / "cdi").iterdir()).read_text()


async def test_an_unprepare_after_a_prepare_leaves_nothing(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """P (busy), U, P, U: nobody uses the claim, so nothing of it is left."""
    backend = await interposed(node)
    backend.gate.clear()
    claim = new_claim(SMALL)
    calls: list[asyncio.Task[object]] = [asyncio.create_task(node.prepare(claim))]
    await eventually(lambda: bool(backend.changes))
    for call in (node.unprepare, node.prepare, node.unprepare):
        calls.append(asyncio.create_task(call(claim)))
        await asyncio.sleep(0)
    backend.gate.set()
    await asyncio.wait(calls)
    await node.claims.finish_calls()
    assert node.leftovers() == []


async def test_a_waiting_call_that_is_cancelled_frees_its_claim_at_once(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """The pod is deleted while its claim waits for a device: its unprepare does not wait, and nothing is made for nobody."""
    holder, claim = new_claim(WHOLE), new_claim(SMALL)
    await node.prepare(holder)
    waiting = asyncio.create_task(node.prepare(claim))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    waiting.cancel()
    await asyncio.wait_for(node.unprepare(claim), 10)
    await node.unprepare(holder)
    await node.claims.finish_calls()
    assert node.leftovers() == []


async def test_an_unprepare_does_not_wait_for_a_prepare_that_waits(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """The prepare gives way and says so; the kubelet has not even cancelled it."""
    await node.prepare(new_claim(WHOLE))
    claim = new_claim(SMALL)
    waiting = asyncio.create_task(node.prepare(claim))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    await asyncio.wait_for(node.unprepare(claim), 10)
    with pytest.raises(ClaimError, match="gave way"):
        await waiting


@pytest.mark.parametrize("turns", [1, 2, 4, 8, 16, 40])
async def test_an_unprepare_ends_a_wait_that_is_just_over(
    node: NodePlugin, new_claim: NewClaim, turns: int
) -> None:
    """Something was given back, and all that wait look again, one after the other: none has begun for a claim that is unprepared by then."""
    gone = new_claim(WHOLE)
    await node.prepare(gone)
    claims = [new_claim(WHOLE) for _ in range(24)]
    waiting = [asyncio.create_task(node.prepare(claim)) for claim in claims]
    done, _ = await asyncio.wait(waiting, timeout=0.2)
    assert not done
    changed = node.state.changed
    release = asyncio.create_task(node.unprepare(gone))
    await changed.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await asyncio.gather(*map(node.unprepare, claims), release)
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(one, ClaimError | list) for one in answers), answers
    assert sum(isinstance(one, list) for one in answers) <= 1, "of one it had begun already"
    assert node.leftovers() == []


async def test_a_pool_that_does_not_answer_refuses_the_claim(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """Its devices are not left out: nothing is prepared without them, and trying again may help."""
    amd = {"request": "b", "driver": DRIVER_NAME, "pool": "n/amd", "device": WHOLE}
    claim = new_claim(WHOLE, amd)
    with pytest.raises(VendorError, match="pool n/amd") as refused:
        await node.prepare(claim, deadline=0.0)
    assert refused.value.retryable
    assert node.leftovers() == []


async def test_a_failed_prepare_is_undone_while_another_gpu_hangs(
    node: NodePlugin, new_claim: NewClaim, tmp_path: Path
) -> None:
    """One GPU's trouble keeps nobody else's half-done work, and whoever waits for it is served."""
    backend = await interposed(node)
    backend.fail_at, backend.fail_after = 1, True
    set_faults(tmp_path / "hardware", {"0000:43:00.0": {"hang_s": 60}})
    with pytest.raises(VendorError, match="did it and says no"):
        await node.prepare(new_claim(SMALL))
    assert not node.state.records
    assert len(await node.prepare(new_claim(WHOLE))) == 1
    set_faults(tmp_path / "hardware", {})


async def test_an_upgrade_that_writes_other_edits_does_not_break_a_replay(
    node: NodePlugin,
    new_claim: NewClaim,
    tmp_path: Path,
    machine: Machine,
    api: CountingApi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the running pod got stays as it was recorded, the file included; new claims get the new edits."""
    claim = new_claim(SMALL)
    first = await node.prepare(claim)
    (file,) = (tmp_path / "cdi").iterdir()
    content = file.read_text()
    newer = NodePlugin(tmp_path, machine, api)
    backend = newer.backend
    edits = ContainerEdits(env=(("NEWER", "1"),))
    monkeypatch.setattr(backend, "edits", lambda target: edits)
    await newer.start()
    assert await newer.prepare(claim) == first
    file.unlink()
    assert await newer.prepare(claim) == first
    assert file.read_text() == content
    await newer.prepare(new_claim(OTHER))
    assert any("NEWER=1" in one.read_text() for one in (tmp_path / "cdi").iterdir())


async def test_a_monitor_sees_the_partition_that_another_claim_made(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """It gets the same hardware, changes nothing, and takes nothing along when it goes."""
    owner, monitor = new_claim(SMALL), new_claim(admin(SMALL))
    await node.prepare(owner)
    await node.prepare(monitor)
    made, seen = (node.state.records[one["metadata"]["uid"]] for one in (owner, monitor))
    assert made.preparation is not None
    assert seen.preparation is not None
    assert made.preparation.devices[0].hardware == seen.preparation.devices[0].hardware
    await node.unprepare(monitor)
    assert node.instances() == [("1g.10gb", 6, True)]
    assert len(await node.prepare(owner)) == 1
    await node.unprepare(owner)
    assert node.leftovers() == []


async def test_a_monitor_of_a_partition_that_is_not_there_is_refused(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """It makes none, and the message names the device."""
    with pytest.raises(ClaimError, match=f"{SMALL} is not there"):
        await node.prepare(new_claim(admin(SMALL)))
    assert node.leftovers() == []


async def test_a_device_is_never_held_twice_however_many_want_it(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """Eight claims on one GPU at once: one has it, the others are refused with its name once they may not wait any more."""
    calls = [node.prepare(new_claim(device), deadline=0.0) for device in (WHOLE, SMALL) * 4]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(one, list) for one in answers) == 1
    assert sum(isinstance(one, DeviceHeld) for one in answers) == 7
