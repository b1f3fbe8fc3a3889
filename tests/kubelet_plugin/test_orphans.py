"""CDI files of claims that have no record."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.config.machine import Machine
from dra_driver.model.errors import DeviceHeld
from dra_driver.ports import JsonObject
from kubelet_plugin.reconciler import CONFIRM_S
from tests.kubelet_plugin.conftest import CountingApi, NewClaim, NodePlugin

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
