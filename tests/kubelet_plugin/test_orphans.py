"""CDI files of claims that have no record."""

from __future__ import annotations

import asyncio
import json
import zlib
from pathlib import Path

import pytest

from dra_driver.config.machine import Machine
from dra_driver.journal.store import ClaimJournal
from dra_driver.model.errors import DeviceHeld
from dra_driver.ports import JsonObject
from kubelet_plugin.witnesses import CONFIRM_S
from tests.kubelet_plugin.conftest import BOOT, CountingApi, NewClaim, NodePlugin

WHOLE, OTHER = "gpu-0000-1b-00-0", "gpu-0000-43-00-0"
SMALL = "gpu-0000-1b-00-0-mig-1g-10gb-6"


def lose_journal(folder: Path) -> None:
    """Remove every record."""
    for file in (folder / "claims").glob("*/*.jsonl"):
        file.unlink()


@pytest.fixture
async def bereft(
    node: NodePlugin, new_claim: NewClaim, tmp_path: Path, machine: Machine, api: CountingApi
) -> tuple[NodePlugin, JsonObject, list[str]]:
    """A plugin that started after its journal was lost, a claim that was prepared, and the answer it got then."""
    claim = new_claim(SMALL)
    first = await node.prepare(claim)
    lose_journal(tmp_path)
    return await NodePlugin(tmp_path, machine, api).start(), claim, first


async def test_a_claim_that_is_still_there_gets_its_record_back(
    bereft: tuple[NodePlugin, JsonObject, list[str]], new_claim: NewClaim
) -> None:
    """Nobody else gets its device, it is replayed and given back as before, and an Event tells of it."""
    node, claim, first = bereft
    await node.node.orphans.look()
    assert node.events.reasons == ["RecordRebuilt"]
    with pytest.raises(DeviceHeld):
        await node.prepare(new_claim(WHOLE), deadline=0.0)
    assert await node.prepare(claim) == first
    await node.unprepare(claim)
    assert node.leftovers() == []


async def test_a_claim_whose_record_the_disk_does_not_take_gets_it_later(
    bereft: tuple[NodePlugin, JsonObject, list[str]], new_claim: NewClaim
) -> None:
    """A sync that fails leaves no record; while one is waited for nobody else gets the device."""
    node, claim, first = bereft
    node.good_syncs = 0
    await node.node.orphans.look()
    assert not node.state.records
    assert list((node.folder / "claims").glob("*/*.jsonl")) == []
    node.good_syncs = None
    node.disk_is_awake.clear()
    look = asyncio.create_task(node.node.orphans.look())
    while not node.state.records:  # noqa: ASYNC110 (nothing tells of it)
        await asyncio.sleep(0)
    with pytest.raises(DeviceHeld):
        await node.prepare(new_claim(WHOLE), deadline=0.0)
    node.disk_is_awake.set()
    await look
    assert node.syncs == 1
    assert await node.prepare(claim) == first


async def test_the_file_of_a_claim_that_is_gone_goes_after_two_answers(
    bereft: tuple[NodePlugin, JsonObject, list[str]], api: CountingApi
) -> None:
    """One answer of the API server may be wrong, and a pod may still use it; an instance that is not on record is nobody's to destroy."""
    node, claim, _ = bereft
    name = (claim["metadata"]["namespace"], claim["metadata"]["name"])
    del api.claims[claim["metadata"]["name"]]
    node.in_use = {name}
    for _ in range(3):
        await node.node.orphans.look()
        assert node.cdi.claims() == {claim["metadata"]["uid"]}
        node.clock.now += CONFIRM_S
    node.in_use = set()
    await node.node.orphans.look()
    assert node.cdi.claims() == set()
    assert len(node.instances()) == 1


async def test_while_the_api_server_is_down_nothing_is_removed(
    bereft: tuple[NodePlugin, JsonObject, list[str]], api: CountingApi
) -> None:
    """No answer is no reason."""
    node, claim, _ = bereft
    api.unavailable = True
    for _ in range(3):
        await node.node.orphans.look()
        node.clock.now += CONFIRM_S
    assert node.cdi.claims() == {claim["metadata"]["uid"]}


async def test_files_that_say_nothing_are_left_alone(
    bereft: tuple[NodePlugin, JsonObject, list[str]], api: CountingApi
) -> None:
    """What we cannot understand may be another release's."""
    node, claim, _ = bereft
    (file,) = (node.folder / "cdi").iterdir()
    file.write_text("{}")
    api.claims.clear()
    for _ in range(3):
        await node.node.orphans.look()
        node.clock.now += CONFIRM_S
    assert node.cdi.claims() == {claim["metadata"]["uid"]}


@pytest.mark.parametrize("damage", ["damaged", "newer"])
async def test_a_note_that_cannot_be_understood_keeps_its_file(
    bereft: tuple[NodePlugin, JsonObject, list[str]], damage: str
) -> None:
    """Only what is surely of a former boot is removed without asking."""
    node, claim, _ = bereft
    (file,) = (node.folder / "cdi").iterdir()
    spec = json.loads(file.read_text())
    ((key, note),) = spec["annotations"].items()
    if damage == "damaged":
        note = note.replace("default", "defaulT")
    else:
        entry = json.dumps(json.loads(note)["entry"] | {"v": 2}, separators=(",", ":"))
        note = f'{{"crc":"{zlib.crc32(entry.encode()):08x}","entry":{entry}}}'
    spec["annotations"] = {key: note}
    file.write_text(json.dumps(spec))
    await node.node.orphans.look()
    assert node.cdi.claims() == {claim["metadata"]["uid"]}


async def test_the_file_of_a_former_boot_goes_at_once(
    node: NodePlugin, new_claim: NewClaim, tmp_path: Path, machine: Machine, api: CountingApi
) -> None:
    """Its containers ended with that boot."""
    await node.prepare(new_claim(WHOLE))
    again = NodePlugin(tmp_path, machine, api)
    again.store = ClaimJournal(tmp_path / "claims", boot_id=BOOT.replace("1", "2"))
    await again.start()
    await again.node.orphans.look()
    assert again.cdi.claims() == set()


async def test_a_claim_s_calls_do_not_wait_for_the_answers_about_its_file(
    bereft: tuple[NodePlugin, JsonObject, list[str]],
    api: CountingApi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The API server does not answer: the claim is unprepared meanwhile."""
    node, claim, _ = bereft
    silent = asyncio.Event()

    async def wait(*_: object, **__: object) -> JsonObject:
        await silent.wait()
        return claim

    monkeypatch.setattr(api, "get", wait)
    looking = asyncio.create_task(node.node.orphans.look())
    await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        await node.unprepare(claim)
    silent.set()
    await looking
