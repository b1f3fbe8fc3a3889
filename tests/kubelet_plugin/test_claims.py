"""Prepare and unprepare over simulated hardware, a real journal and a real CDI folder."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dra_driver.config.machine import Machine
from dra_driver.model.activity import Activity
from dra_driver.model.device import CreateStage, DestroyStage, Gpu, PartitionChange, SetMode, Target
from dra_driver.model.edits import ContainerEdits, Mount, SharedEdits
from dra_driver.model.errors import (
    ClaimError,
    ClaimReplaced,
    DeviceHeld,
    DraError,
    RecordError,
    VendorError,
)
from dra_driver.model.health import Ailment
from dra_driver.ports import Backend
from kubelet_plugin.claims import REPLY_MARGIN_S
from tests.kubelet_plugin.conftest import POOL, CountingApi, NewClaim, NodePlugin
from tests.passing_time import pass_time
from tests.process.conftest import eventually

GPU = "0000:1b:00.0"
WHOLE = "gpu-0000-1b-00-0"
SMALL = "gpu-0000-1b-00-0-mig-1g-10gb-6"
BESIDE = "gpu-0000-1b-00-0-mig-1g-10gb-5"
OTHER = "gpu-0000-43-00-0"


class Interposed:
    """A backend with something before or after its changes; the first GPU's wait at the gate."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.vendor = inner.vendor
        self.gate = threading.Event()
        self.gate.set()
        self.fail_at: int | None = None
        self.fail_after = False
        self.changes: list[PartitionChange] = []
        self.files: SharedEdits | None = None

    def addresses(self) -> tuple[str, ...]:
        return self._inner.addresses()

    def read(self, pci_address: str) -> Gpu:
        return self._inner.read(pci_address)

    def identify(self, target: Target) -> tuple[str, ...]:
        return self._inner.identify(target)

    def health(self, pci_address: str) -> tuple[Ailment, ...] | None:
        return self._inner.health(pci_address)

    def edits(self, target: Target) -> ContainerEdits:
        return self._inner.edits(target)

    def shared(self) -> SharedEdits | None:
        return self.files

    def activity(self, pci_address: str) -> tuple[Activity, ...]:
        return self._inner.activity(pci_address)

    def close(self) -> None:
        self._inner.close()

    def partition(self, change: PartitionChange) -> str:
        number = len(self.changes)
        self.changes.append(change)
        assert change.gpu != GPU or self.gate.wait(30)
        if number == self.fail_at and not self.fail_after:
            raise VendorError("the hardware says no")
        identity = self._inner.partition(change)
        if number == self.fail_at:
            raise VendorError("the hardware did it and says no")
        return identity


async def interposed(node: NodePlugin) -> Interposed:
    """The node, started anew with an interposed backend."""
    backend = Interposed(node.backend)
    node.backends[POOL] = backend
    await node.start()
    return backend


async def test_a_whole_gpu_from_claim_to_cdi_file_and_back(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """The CDI id that the kubelet is told resolves to a device in a file, and nothing is left afterwards."""
    claim = new_claim(WHOLE)
    (cdi_id,) = await node.prepare(claim)
    (file,) = (node.folder / "cdi").iterdir()
    spec = json.loads(file.read_text())
    assert cdi_id == f"{spec['kind']}={spec['devices'][0]['name']}"
    assert "/dev/nvidia0" in file.read_text()
    await node.unprepare(claim)
    assert node.leftovers() == []


def files(name: str) -> SharedEdits:
    """Of a driver."""
    library = Mount(host_path=f"/{name}/libcuda.so.1", container_path="/usr/lib/libcuda.so.1")
    return SharedEdits(name=name, edits=ContainerEdits(mounts=(library,)))


async def test_the_drivers_files_are_one_device_for_all_claims(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """Each device is told with its own CDI id first and the driver's after it; the claim's own file says nothing of them."""
    backend = await interposed(node)
    backend.files = files("nvidia-1")
    first, second = new_claim(("a", SMALL), ("b", BESIDE)), new_claim(OTHER)
    told = [await node.prepare(first), await node.prepare(second)]
    driver = "gpu.dra-driver.dev/driver=nvidia-1"
    assert [ids[1::2] for ids in told] == [[driver, driver], [driver]]
    contents = {path.name: path.read_text() for path in (node.folder / "cdi").iterdir()}
    shared = contents.pop("gpu.dra-driver.dev-driver_nvidia-1.json")
    assert "/nvidia-1/libcuda.so.1" in shared
    assert len(contents) == 2
    assert not [content for content in contents.values() if "libcuda" in content]


async def test_a_replay_finds_the_drivers_files_or_says_that_they_are_gone(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """A lost file is written again; after the driver was replaced, its files are kept for as long as they are there."""
    backend = await interposed(node)
    backend.files = files("nvidia-1")
    claim = new_claim(WHOLE)
    told = await node.prepare(claim)
    file = node.folder / "cdi/gpu.dra-driver.dev-driver_nvidia-1.json"
    file.unlink()
    assert await node.prepare(claim) == told
    assert file.exists()
    backend.files = files("nvidia-2")
    assert await node.prepare(claim) == told
    file.unlink()
    with pytest.raises(ClaimError, match="driver=nvidia-1, and its CDI file is gone"):
        await node.prepare(claim)
    await node.unprepare(claim)


async def test_a_start_keeps_the_drivers_files_that_claims_use(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """Those of former drivers go when no claim is left that was prepared with them."""
    backend = await interposed(node)
    claims = [new_claim(WHOLE), new_claim(OTHER)]
    for number, claim in enumerate(claims):
        backend.files = files(f"nvidia-{number}")
        await node.prepare(claim)
    await node.unprepare(claims[0])
    shared = sorted((node.folder / "cdi").glob("*driver_*"))
    assert len(shared) == 2
    for path in shared:
        os.utime(path, (0, 0))
    await node.start()
    assert [path.exists() for path in shared] == [False, True]


async def test_partitions_are_made_and_destroyed_with_their_claim(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """Two instances exist while the claim does; the GPU is whole again for the next claim."""
    claim = new_claim(("a", SMALL), ("b", BESIDE))
    ids = await node.prepare(claim)
    assert len(set(ids)) == 2
    assert node.instances() == [("1g.10gb", 5, True), ("1g.10gb", 6, True)]
    await node.unprepare(claim)
    assert node.leftovers() == []
    whole = new_claim(WHOLE)
    await node.prepare(whole)
    await node.unprepare(whole)
    assert node.leftovers() == []


@pytest.mark.parametrize(("device", "syncs"), [(WHOLE, 1), (SMALL, 2)])
async def test_a_claim_costs_one_get_few_syncs_and_no_process(
    node: NodePlugin, new_claim: NewClaim, api: CountingApi, device: str, syncs: int
) -> None:
    """Exact counters: one GET per new claim and one sync, two where hardware changes; none for a replay or an unprepare."""
    spawned: list[str] = []

    def audit(event: str, _args: tuple[Any, ...]) -> None:
        if event in {
            "subprocess.Popen",
            "os.fork",
            "os.forkpty",
            "os.posix_spawn",
            "os.exec",
            "os.system",
        }:
            spawned.append(event)

    sys.addaudithook(audit)
    claim = new_claim(device)
    first = await node.prepare(claim)
    assert (api.gets, node.syncs) == (1, syncs)
    assert await node.prepare(claim) == first
    await node.unprepare(claim)
    assert (api.gets, node.syncs) == (1, syncs)
    assert spawned == []


async def test_replays_and_unprepares_work_with_the_api_server_down(
    node: NodePlugin, new_claim: NewClaim, api: CountingApi, tmp_path: Path, machine: Machine
) -> None:
    """Also in the next process, which knows the claim from its journal alone."""
    claim = new_claim(SMALL)
    first = await node.prepare(claim)
    api.down = True
    restarted = await NodePlugin(tmp_path, machine, api).start()
    assert await restarted.prepare(claim) == first
    await restarted.unprepare(claim)
    assert restarted.leftovers() == []


async def test_a_replay_writes_a_lost_cdi_file_again(node: NodePlugin, new_claim: NewClaim) -> None:
    """Deleted or edited behind our back: the answer is the same and the file is as it was."""
    claim = new_claim(SMALL)
    first = await node.prepare(claim)
    (file,) = (node.folder / "cdi").iterdir()
    content = file.read_text()
    file.unlink()
    assert await node.prepare(claim) == first
    file.write_text("{}")
    assert await node.prepare(claim) == first
    assert file.read_text() == content


async def test_a_replay_does_not_promise_what_is_gone(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """Somebody destroyed the instance: the claim is refused, and can still be released."""
    claim = new_claim(SMALL)
    await node.prepare(claim)
    destroy_all(node)
    with pytest.raises(DraError):
        await node.prepare(claim)
    await node.unprepare(claim)
    assert node.leftovers() == []


def destroy_all(node: NodePlugin) -> None:
    """Destroy every instance, as an administrator would."""
    for gpu in node.inventory().gpus:
        for instance in gpu.instances:
            created = CreateStage(
                gpu=gpu.pci_address,
                profile=instance.profile,
                placement=instance.placement,
                stage="gpu-instance",
            )
            node.backend.partition(DestroyStage(created=created, identity=instance.identity))
            parent = instance.identity.partition("/")[0]
            node.backend.partition(DestroyStage(created=created, identity=parent))


@pytest.mark.parametrize("fail_at", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("fail_after", [False, True], ids=["before", "after"])
async def test_a_failed_step_is_undone_in_the_same_call(
    node: NodePlugin, new_claim: NewClaim, fail_at: int, fail_after: bool
) -> None:
    """Whichever step fails, whether or not the hardware did it: nothing is left, and the next try works."""
    backend = await interposed(node)
    backend.fail_at, backend.fail_after = fail_at, fail_after
    claim = new_claim(("a", SMALL), ("b", BESIDE))
    with pytest.raises(VendorError, match="says no"):
        await node.prepare(claim)
    assert node.leftovers() == []
    assert len(await node.prepare(claim)) == 2
    await node.unprepare(claim)
    assert node.leftovers() == []


@pytest.mark.parametrize("device", [WHOLE, SMALL])
@pytest.mark.parametrize("operation", ["prepare", "unprepare"])
@pytest.mark.parametrize("point", range(14))
async def test_a_crash_anywhere_leaves_no_orphan(
    tmp_path: Path,
    machine: Machine,
    api: CountingApi,
    new_claim: NewClaim,
    device: str,
    operation: str,
    point: int,
) -> None:
    """Dying before or after any hardware change, journal line or CDI write: the next process undoes or keeps it whole."""
    node = await NodePlugin(tmp_path, machine, api).start()
    claim = new_claim(device)
    if operation == "unprepare":
        await node.prepare(claim)
    countdown = Countdown(point)
    for owner, names in (
        (node.backend, ["partition"]),
        (node.store, ["begin", "step", "finish", "releasing", "forget"]),
        (node.cdi, ["write", "remove"]),
    ):
        for name in names:
            setattr(owner, name, countdown.around(getattr(owner, name)))
    task = asyncio.ensure_future(getattr(node, operation)(claim))
    await asyncio.wait([task])
    await node.claims.finish_calls()
    task.exception()

    successor = await NodePlugin(tmp_path, machine, api).start()
    if claim["metadata"]["uid"] in successor.state.records:
        assert len(await successor.prepare(claim)) == 1
    else:
        assert successor.leftovers() == []
    await successor.unprepare(claim)
    assert successor.leftovers() == []


class Countdown:
    """Every wrapped call counts before and after; at the wanted count everything stops for good."""

    def __init__(self, left: int) -> None:
        self._left = left

    def around(self, function: Any) -> Any:
        def call(*args: Any) -> Any:
            self._tick()
            result = function(*args)
            self._tick()
            return result

        return call

    def _tick(self) -> None:
        if self._left <= 0:
            raise RuntimeError("the process is dead")
        self._left -= 1


async def test_equal_calls_share_one_execution(
    node: NodePlugin, new_claim: NewClaim, api: CountingApi
) -> None:
    """64 calls for one claim at once: one GET, one instance, one answer."""
    claim = new_claim(SMALL)
    answers = await asyncio.gather(*(node.prepare(claim) for _ in range(64)))
    assert all(answer == answers[0] for answer in answers)
    assert api.gets == 1
    assert len(node.instances()) == 1


async def test_a_cancelled_call_goes_on_and_the_retry_joins_it(
    node: NodePlugin, new_claim: NewClaim, api: CountingApi
) -> None:
    """The kubelet gave up: what has begun is finished, once."""
    backend = await interposed(node)
    backend.gate.clear()
    claim = new_claim(SMALL)
    call = asyncio.create_task(node.prepare(claim))
    await eventually(lambda: bool(backend.changes))
    call.cancel()
    await asyncio.wait([call])
    backend.gate.set()
    assert len(await node.prepare(claim)) == 1
    assert api.gets == 1
    assert sum(isinstance(change, SetMode) for change in backend.changes) == 1


async def test_a_claim_waits_inside_its_call_for_a_predecessor(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """While one waits, the other's unprepare succeeds, and the waiter is served in the same call."""
    first, second = new_claim(WHOLE), new_claim(SMALL)
    await node.prepare(first)
    waiter = asyncio.create_task(node.prepare(second))
    await asyncio.sleep(0.05)
    assert not waiter.done()
    await node.unprepare(first)
    assert len(await waiter) == 1


async def test_a_wait_ends_before_the_callers_deadline(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """The holder stays: the call is answered in time, naming it, and nothing of the waiter is left."""
    first, second = new_claim(WHOLE), new_claim(WHOLE)
    await node.prepare(first)
    deadline = asyncio.get_running_loop().time() + REPLY_MARGIN_S + 0.1
    with pytest.raises(DeviceHeld, match="default/claim-1"):
        await node.prepare(second, deadline=deadline)
    assert asyncio.get_running_loop().time() < deadline
    assert second["metadata"]["uid"] not in node.state.records


async def test_a_slow_gpu_does_not_hold_up_another(node: NodePlugin, new_claim: NewClaim) -> None:
    """One GPU takes its time; a claim on the other is served meanwhile."""
    backend = await interposed(node)
    backend.gate.clear()
    slow = asyncio.create_task(node.prepare(new_claim(SMALL)))
    await eventually(lambda: bool(backend.changes))
    await node.prepare(new_claim(f"{OTHER}-mig-1g-10gb-6"))
    assert not slow.done()
    backend.gate.set()
    await slow


async def test_a_hung_library_costs_its_own_gpu_only(
    tmp_path: Path, machine: Machine, api: CountingApi, new_claim: NewClaim
) -> None:
    """An error within the deadline, other GPUs served; what the call did later is found and undone by the next try."""
    node = await NodePlugin(tmp_path, machine, api, timeout_s=30.0).start()
    backend = await interposed(node)
    claim = new_claim(SMALL)
    await node.prepare(claim)
    await node.unprepare(claim)
    done = len(backend.changes)
    backend.gate.clear()
    call = asyncio.create_task(node.prepare(claim))
    await eventually(lambda: len(backend.changes) > done)
    pass_time(30.0)
    with pytest.raises(VendorError, match="did not answer within 30 s"):
        await call
    await node.prepare(new_claim(OTHER))
    assert claim["metadata"]["uid"] in node.state.records
    backend.gate.set()
    await eventually(lambda: not node.node.survey._calls.is_busy(GPU))
    assert node.instances() == [("1g.10gb", 6, False)]
    await node.prepare(claim)
    await node.unprepare(claim)
    assert node.instances() == []


async def test_a_folder_that_cannot_be_written_costs_the_call_only(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """No CDI folder: a clear error, everything undone; once it is back, the claim is served."""
    cdi = node.folder / "cdi"
    cdi.parent.mkdir(exist_ok=True)
    cdi.write_text("in the way")
    claim = new_claim(SMALL)
    with pytest.raises(RecordError, match=r"cdi"):
        await node.prepare(claim)
    assert node.instances() == []
    cdi.unlink()
    assert len(await node.prepare(claim)) == 1


@pytest.mark.parametrize(("device", "good_syncs"), [(WHOLE, 0), (SMALL, 0), (SMALL, 1)])
async def test_a_disk_that_does_not_take_the_record_gets_nothing_promised(
    node: NodePlugin, new_claim: NewClaim, device: str, good_syncs: int
) -> None:
    """A sync that fails, before hardware is changed or after: the call fails with the cause, and everything is undone."""
    node.good_syncs = good_syncs
    claim = new_claim(device)
    with pytest.raises(
        RecordError, match=r"cannot sync .*Input/output error; look for disk errors"
    ):
        await node.prepare(claim)
    assert node.leftovers() == []
    assert not node.state.records
    node.good_syncs = None
    assert len(await node.prepare(claim)) == 1


async def test_who_waits_for_the_disk_holds_up_nobody(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """A sync that does not come back: other claims are replayed and given back meanwhile, and the claim is prepared in the end."""
    prepared, waiting = new_claim(OTHER), new_claim(WHOLE)
    await node.prepare(prepared)
    node.disk_is_awake.clear()
    call = asyncio.create_task(node.prepare(waiting))
    async with asyncio.timeout(10):
        assert len(await node.prepare(prepared)) == 1
        await node.unprepare(prepared)
    assert not call.done()
    node.disk_is_awake.set()
    assert len(await call) == 1


async def test_a_damaged_record_is_not_promised_before_the_disk_has_it_again(
    node: NodePlugin, new_claim: NewClaim, tmp_path: Path, machine: Machine, api: CountingApi
) -> None:
    """A sync that fails while the record is rebuilt: the next call tries again, and tells of it only when it is done."""
    claim = new_claim(SMALL)
    first = await node.prepare(claim)
    damage_record(tmp_path)
    restarted = NodePlugin(tmp_path, machine, api)
    restarted.good_syncs = 0
    await restarted.start()
    with pytest.raises(RecordError, match=r"cannot rebuild .*Input/output error"):
        await restarted.prepare(claim)
    assert "RecordRebuilt" not in restarted.events.reasons
    restarted.good_syncs = None
    assert await restarted.prepare(claim) == first
    assert (restarted.events.reasons[-1], restarted.syncs) == ("RecordRebuilt", 1)


async def test_a_replaced_claim_is_refused(
    node: NodePlugin, new_claim: NewClaim, api: CountingApi
) -> None:
    """The name stands for another claim by now: nothing is prepared for the old UID."""
    claim = new_claim(WHOLE)
    replacement = new_claim(WHOLE)
    api.claims[claim["metadata"]["name"]] = replacement
    with pytest.raises(ClaimReplaced, match=replacement["metadata"]["uid"]):
        await node.prepare(claim)
    assert node.leftovers() == []


async def test_an_unknown_claim_holds_nothing(
    node: NodePlugin, new_claim: NewClaim, api: CountingApi
) -> None:
    """Unprepare succeeds without asking anybody."""
    await node.unprepare(new_claim(WHOLE))
    assert api.gets == 0


def damage_record(folder: Path) -> None:
    """Change one word of the only record's first line."""
    (file,) = (folder / "claims").glob("*/*.jsonl")
    file.write_bytes(file.read_bytes().replace(b"claim-1", b"claim-7"))


@pytest.mark.parametrize("device", [WHOLE, SMALL])
async def test_a_damaged_record_is_rebuilt_from_the_cdi_file(
    node: NodePlugin,
    new_claim: NewClaim,
    tmp_path: Path,
    machine: Machine,
    api: CountingApi,
    device: str,
) -> None:
    """At the next start, with the API server down: the claim goes on as if nothing had been, and an Event says so."""
    claim = new_claim(device)
    first = await node.prepare(claim)
    damage_record(tmp_path)
    api.down = True
    restarted = await NodePlugin(tmp_path, machine, api).start()
    assert restarted.events.reasons == ["RecordRebuilt"]
    assert restarted.syncs == 1
    again = await NodePlugin(tmp_path, machine, api).start()
    assert again.events.reasons == []
    assert await again.prepare(claim) == first
    await again.unprepare(claim)
    assert not again.state.records
    assert again.instances() == []


async def test_a_damaged_record_holds_its_devices_until_it_is_rebuilt(
    node: NodePlugin, new_claim: NewClaim, tmp_path: Path, machine: Machine, api: CountingApi
) -> None:
    """Hardware does not answer at the start: nobody else gets the device, and the claim itself can be given back."""
    claim, other = new_claim(WHOLE), new_claim(WHOLE)
    await node.prepare(claim)
    damage_record(tmp_path)
    restarted = NodePlugin(tmp_path, machine, api)
    restarted.node = restarted.build()
    restarted.node.recovery.restore()
    await restarted.node.survey.look()
    with pytest.raises(DeviceHeld, match="default/claim-1"):
        await restarted.prepare(other, deadline=asyncio.get_running_loop().time() + 3.1)
    await restarted.unprepare(claim)
    assert len(await restarted.prepare(other)) == 1


async def test_a_record_of_which_nothing_is_known_costs_its_own_claim(
    node: NodePlugin, new_claim: NewClaim, tmp_path: Path, machine: Machine, api: CountingApi
) -> None:
    """The CDI file is gone too: the claim is refused, by name and in every process of this boot; others are served."""
    claim, other = new_claim(WHOLE), new_claim(OTHER)
    await node.prepare(claim)
    damage_record(tmp_path)
    for file in (tmp_path / "cdi").iterdir():
        file.unlink()
    for _ in range(2):
        restarted = await NodePlugin(tmp_path, machine, api).start()
        with pytest.raises(RecordError, match="claim default/claim-1"):
            await restarted.prepare(claim)
        with pytest.raises(RecordError, match="claim default/claim-1"):
            await restarted.unprepare(claim)
        assert "RecordDamaged" in restarted.events.reasons
    assert len(await restarted.prepare(other)) == 1


async def test_a_claim_that_was_never_allocated_is_refused(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """By name, and nothing is written down."""
    claim = new_claim(WHOLE)
    del claim["status"]["allocation"]
    with pytest.raises(ClaimError, match="default/claim-1 is not allocated"):
        await node.prepare(claim)
    assert node.leftovers() == []


async def test_every_stage_of_a_partition_is_one_change(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """Mode, GPU instance, compute instance: three calls, each one hardware change."""
    backend = await interposed(node)
    await node.prepare(new_claim(SMALL))
    assert isinstance(backend.changes[0], SetMode)
    stages = [change.stage for change in backend.changes if isinstance(change, CreateStage)]
    assert stages == ["gpu-instance", "compute-instance"]


async def test_a_release_that_is_tried_again_spares_who_has_the_number_now(
    node: NodePlugin, new_claim: NewClaim, tmp_path: Path
) -> None:
    """A half-done release, another claim's instance with the freed number, the release again: the other one lives."""
    first = new_claim(("a", SMALL), ("b", BESIDE))
    await node.prepare(first)
    uuids = {i.placement.start: i.uuid for g in node.inventory().gpus for i in g.instances}
    faults = tmp_path / "hardware" / "faults.json"
    faults.write_text(json.dumps({uuids[6]: {"busy": True}}))
    with pytest.raises(VendorError):
        await node.unprepare(first)
    assert node.instances() == [("1g.10gb", 6, True)]
    second = new_claim("gpu-0000-1b-00-0-mig-1g-10gb-0")
    await node.prepare(second)
    faults.unlink()
    await node.unprepare(first)
    assert node.instances() == [("1g.10gb", 0, True)]
    await node.unprepare(second)
    assert node.leftovers() == []
