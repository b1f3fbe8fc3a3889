"""Two plugins of a rolling upgrade on one node: each plans with what the other has recorded and changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event

import pytest

from dra_driver.config.machine import Machine
from dra_driver.model.errors import DeviceHeld, DraError, VendorError
from dra_driver.model.record import ClaimRecord
from kubelet_plugin.instances import joined
from tests.kubelet_plugin.conftest import CountingApi, NewClaim, NodePlugin, machine_of
from tests.vendors.faults import set_faults

WHOLE, OTHER, THIRD = "gpu-0000-1b-00-0", "gpu-0000-43-00-0", "gpu-0000-52-00-0"
SMALL = "gpu-0000-1b-00-0-mig-1g-10gb-6"
LARGE = "gpu-0000-1b-00-0-mig-7g-80gb-0"


class Processes:
    """Plugins over one folder, each with an instance lock of its own, as if they were processes."""

    def __init__(self, folder: Path, machine: Machine, api: CountingApi) -> None:
        self._folder, self._machine, self._api = folder, machine, api
        self._leaving: dict[str, ExitStack] = {}

    async def join(self, pod_uid: str) -> NodePlugin:
        return await self.joining(pod_uid).start()

    def joining(self, pod_uid: str) -> NodePlugin:
        plugin = NodePlugin(self._folder, self._machine, self._api)
        stack = self._leaving[pod_uid] = ExitStack()
        plugin.instance = stack.enter_context(joined(self._folder, pod_uid))
        return plugin

    def leave(self, pod_uid: str) -> None:
        self._leaving.pop(pod_uid).close()

    def leave_all(self) -> None:
        for pod_uid in list(self._leaving):
            self.leave(pod_uid)


@pytest.fixture
def machine() -> Machine:
    """Three H100s."""
    return machine_of("H100-SXM5-80GB", 3)


@pytest.fixture
def processes(tmp_path: Path, machine: Machine, api: CountingApi) -> Iterator[Processes]:
    processes = Processes(tmp_path, machine, api)
    yield processes
    processes.leave_all()


async def test_what_another_process_holds_is_not_given_out(
    processes: Processes, new_claim: NewClaim
) -> None:
    """In either direction, and also once that process is gone."""
    old, new = await processes.join("old"), await processes.join("new")
    first, second = new_claim(WHOLE), new_claim(OTHER)
    await old.prepare(first)
    await new.prepare(second)
    with pytest.raises(DeviceHeld, match="claim-1"):
        await new.prepare(new_claim(WHOLE), deadline=0.0)
    with pytest.raises(DeviceHeld, match="claim-2"):
        await old.prepare(new_claim(OTHER), deadline=0.0)


async def test_what_a_process_did_last_is_known_when_it_is_gone(
    processes: Processes, new_claim: NewClaim
) -> None:
    """The other one had no call meanwhile: the device stays held, the claim is replayed and given back."""
    old, new = await processes.join("old"), await processes.join("new")
    claim = new_claim(SMALL)
    first = await old.prepare(claim)
    processes.leave("old")
    with pytest.raises(DeviceHeld, match="claim-1"):
        await new.prepare(new_claim(WHOLE), deadline=0.0)
    assert await new.prepare(claim) == first
    await new.unprepare(claim)
    assert new.leftovers() == []


async def test_a_process_that_came_and_went_between_two_calls_is_noticed(
    processes: Processes, new_claim: NewClaim
) -> None:
    """An upgrade that was rolled back: the older process never met the newer one, and knows what it did."""
    old = await processes.join("old")
    await old.prepare(new_claim(OTHER))
    new = await processes.join("new")
    claim = new_claim(SMALL)
    first = await new.prepare(claim)
    processes.leave("new")
    with pytest.raises(DeviceHeld, match="claim-2"):
        await old.prepare(new_claim(WHOLE), deadline=0.0)
    assert await old.prepare(claim) == first
    await old.unprepare(claim)


async def test_an_instance_that_another_process_destroyed_is_not_in_the_way(
    processes: Processes, new_claim: NewClaim
) -> None:
    """One made it, one saw it, the first destroyed it and is gone: the GPU is looked at before a claim is planned on it."""
    old, new = await processes.join("old"), await processes.join("new")
    claim = new_claim(SMALL)
    await old.prepare(claim)
    await new.node.survey.look()
    await old.unprepare(claim)
    processes.leave("old")
    await new.unprepare(new_claim(OTHER))
    assert len(await new.prepare(new_claim(LARGE))) == 1


async def test_a_call_that_comes_before_the_first_look_is_served(
    processes: Processes, new_claim: NewClaim
) -> None:
    """A newer process opens its socket first: it gives back what the older one prepared, and knows that GPU then."""
    old, claim = await processes.join("old"), new_claim(SMALL)
    await old.prepare(claim)
    new = processes.joining("new")
    new.node = new.build()
    new.node.recovery.restore()
    await new.unprepare(claim)
    assert new.leftovers() == []


async def test_a_claim_whose_record_is_damaged_keeps_its_device(
    processes: Processes, new_claim: NewClaim, tmp_path: Path
) -> None:
    """Beside another process, too: what was known of it at the start is all that there is."""
    old = await processes.join("old")
    await old.prepare(new_claim(WHOLE))
    [record] = (tmp_path / "claims").glob("*/*.jsonl")
    record.write_bytes(b"x" + record.read_bytes()[1:])
    new = await processes.join("new")
    with pytest.raises(DeviceHeld, match="claim-1"):
        await new.prepare(new_claim(WHOLE), deadline=0.0)


class HeldUp:
    """A store's look at all records, whose answer is held back once it is known."""

    def __init__(self, look: Callable[[], tuple[dict[str, ClaimRecord], frozenset[str]]]) -> None:
        self._look = look
        self.looked, self.go_on = Event(), Event()

    def __call__(self) -> tuple[dict[str, ClaimRecord], frozenset[str]]:
        found = self._look()
        self.looked.set()
        assert self.go_on.wait(10)
        return found


@contextmanager
def holding_up_one_look(plugin: NodePlugin) -> Iterator[HeldUp]:
    """The plugin's next look at all records takes as long as the block."""
    look = plugin.store.read_all
    held_up = HeldUp(look)

    def records() -> tuple[dict[str, ClaimRecord], frozenset[str]]:
        setattr(plugin.store, "read_all", look)  # noqa: B010 (a method)
        return held_up()

    setattr(plugin.store, "read_all", records)  # noqa: B010 (a method)
    try:
        yield held_up
    finally:
        held_up.go_on.set()


async def test_a_look_that_took_long_hides_nothing_newer(
    processes: Processes, new_claim: NewClaim
) -> None:
    """While one call reads the journal, others take and give back devices: its answer is old news and undoes nothing."""
    old, new = await processes.join("old"), await processes.join("new")
    going, mine, theirs = new_claim(SMALL), new_claim(WHOLE), new_claim(OTHER)
    slowly = new_claim(THIRD)
    await new.prepare(going)
    with holding_up_one_look(new) as look:
        slow = asyncio.create_task(new.prepare(slowly))
        await asyncio.to_thread(look.looked.wait, 10)
        await new.unprepare(going)
        await new.prepare(mine)
        await old.prepare(theirs)
        with pytest.raises(DeviceHeld):
            await new.prepare(new_claim(OTHER), deadline=0.0)
        look.go_on.set()
        await slow
    uids = {claim["metadata"]["uid"] for claim in (mine, theirs, slowly)}
    assert new.state.records.keys() == uids


async def test_who_waits_is_served_by_what_a_newcomer_releases(
    processes: Processes, new_claim: NewClaim
) -> None:
    """The other process came while the claim waited, and tells nobody of what it does."""
    old = await processes.join("old")
    holder = new_claim(WHOLE)
    await old.prepare(holder)
    waiting = asyncio.create_task(old.prepare(new_claim(SMALL)))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    new = await processes.join("new")
    await new.unprepare(holder)
    assert len(await asyncio.wait_for(waiting, 5)) == 1


def spoil(path: Path) -> None:
    """Change the first byte."""
    path.write_bytes(b"x" + path.read_bytes()[1:])


async def test_a_prepare_that_fails_removes_no_record_that_is_there(
    processes: Processes, new_claim: NewClaim, tmp_path: Path
) -> None:
    """Another process prepared the claim, and its record was damaged since: it is refused, and nothing of it is touched."""
    old, new = await processes.join("old"), await processes.join("new")
    claim = new_claim(WHOLE)
    await old.prepare(claim)
    (record,) = (tmp_path / "claims").glob("*/*.jsonl")
    spoil(record)
    with pytest.raises(DraError):
        await new.prepare(claim, deadline=0.0)
    assert record.exists()
    assert new.cdi.claims() == {claim["metadata"]["uid"]}


async def test_a_record_that_cannot_be_read_hides_no_device(
    processes: Processes, new_claim: NewClaim, tmp_path: Path
) -> None:
    """Nothing is given out while it is not known what another process has given out."""
    old, new = await processes.join("old"), await processes.join("new")
    claim = new_claim(WHOLE)
    await old.prepare(claim)
    (record,) = (tmp_path / "claims").glob("*/*.jsonl")
    content = record.read_bytes()
    spoil(record)
    with pytest.raises(VendorError, match=claim["metadata"]["uid"]):
        await new.prepare(new_claim(WHOLE), deadline=0.0)
    record.write_bytes(content)
    with pytest.raises(DeviceHeld):
        await new.prepare(new_claim(WHOLE), deadline=0.0)
    assert len(await new.prepare(new_claim(OTHER))) == 1


async def test_what_a_process_left_half_done_is_undone_by_the_other(
    processes: Processes, new_claim: NewClaim, api: CountingApi, tmp_path: Path
) -> None:
    """It died in the middle of a prepare, long after the other one's start, and the claim is gone."""
    old, new = await processes.join("old"), await processes.join("new")
    failing = ["create_compute_instance", "destroy_gpu_instance"]
    set_faults(tmp_path / "hardware", {"0000:1b:00.0": {"error": "IN_USE", "calls": failing}})
    claim = new_claim(SMALL)
    with pytest.raises(VendorError):
        await old.prepare(claim)
    processes.leave("old")
    set_faults(tmp_path / "hardware", {})
    del api.claims[claim["metadata"]["name"]]
    waiting = asyncio.create_task(new.prepare(new_claim(WHOLE)))
    reconciling = asyncio.create_task(new.node.reconciler.run())
    async with asyncio.timeout(30):
        assert len(await waiting) == 1
    reconciling.cancel()


async def test_a_whole_gpu_is_given_back_while_it_does_not_answer(
    processes: Processes, new_claim: NewClaim, tmp_path: Path
) -> None:
    """Its claim had switched the mode, and another process came and went; nothing of that is to be undone."""
    plugin = await processes.join("old")
    small, whole = new_claim(SMALL), new_claim(WHOLE)
    await plugin.prepare(small)
    await plugin.unprepare(small)
    await plugin.prepare(whole)
    await processes.join("new")
    processes.leave("new")
    set_faults(tmp_path / "hardware", {"0000:1b:00.0": {"error": "UNKNOWN"}})
    await plugin.unprepare(whole)
    assert not plugin.state.records
