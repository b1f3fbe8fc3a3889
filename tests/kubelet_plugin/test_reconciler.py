"""What claims hold that are gone is released, and never what may still be used."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dra_driver.model.errors import KubeletUnavailable, VendorError
from dra_driver.model.record import ClaimRecord
from dra_driver.ports import JsonObject
from kubelet_plugin import node as node_parts
from kubelet_plugin.claims import DEADLINE_S
from kubelet_plugin.witnesses import CONFIRM_S, INTERVAL_S
from tests.faults import virtual_time
from tests.kubelet_plugin.conftest import CountingApi, NewClaim, NodePlugin, machine_of, ref
from tests.vendors.faults import set_faults

WHOLE, OTHER = "gpu-0000-1b-00-0", "gpu-0000-43-00-0"
SMALL = "gpu-0000-1b-00-0-mig-1g-10gb-6"
GPU = "0000:1b:00.0"
DESTROYING = ["destroy_gpu_instance", "destroy_compute_instance"]


async def look(node: NodePlugin, *, after_s: float = 0.0) -> bool:
    """Whether anything is still held after another look."""
    node.clock.now += after_s
    await node.node.reconciler.look(frozenset(node.state.records))
    return bool(node.state.records)


def delete(api: CountingApi, claim: JsonObject) -> None:
    """As `kubectl delete --force` would."""
    del api.claims[claim["metadata"]["name"]]


def replace(api: CountingApi, claim: JsonObject) -> None:
    """Another claim has the name now."""
    metadata = claim["metadata"] | {"uid": "00000000-0000-0000-0000-00000000ffff"}
    api.claims[claim["metadata"]["name"]] = claim | {"metadata": metadata}


def deallocate(api: CountingApi, claim: JsonObject) -> None:
    """The scheduler took its devices back."""
    api.claims[claim["metadata"]["name"]] = claim | {"status": {}}


def allocate_elsewhere(api: CountingApi, claim: JsonObject) -> None:
    """Its devices are another node's now."""
    result = claim["status"]["allocation"]["devices"]["results"][0] | {"pool": "m/nvidia"}
    allocation = {"devices": {"results": [result]}}
    api.claims[claim["metadata"]["name"]] = claim | {"status": {"allocation": allocation}}


@pytest.mark.parametrize("go", [delete, replace, deallocate, allocate_elsewhere])
async def test_what_a_claim_held_is_released_after_two_answers(
    node: NodePlugin, new_claim: NewClaim, api: CountingApi, go: object
) -> None:
    """At least ten seconds apart; the partition, the CDI file and the record go, and other claims' stay."""
    gone, stays = new_claim(SMALL), new_claim(OTHER)
    for claim in (gone, stays):
        await node.prepare(claim)
    assert callable(go)
    go(api, gone)
    await look(node)
    await look(node, after_s=CONFIRM_S - 1)
    assert len(node.state.records) == 2
    await look(node, after_s=1)
    assert list(node.state.records) == [ref(stays).uid]
    assert node.instances() == []


async def test_one_contrary_answer_begins_anew(
    node: NodePlugin, new_claim: NewClaim, api: CountingApi
) -> None:
    """The claim was there again between two answers that it is gone: that is not two answers."""
    claim = new_claim(WHOLE)
    await node.prepare(claim)
    delete(api, claim)
    assert await look(node)
    api.claims[claim["metadata"]["name"]] = claim
    assert await look(node, after_s=CONFIRM_S)
    delete(api, claim)
    assert await look(node, after_s=CONFIRM_S)
    assert not await look(node, after_s=CONFIRM_S)


async def test_what_a_pod_uses_is_not_released(
    node: NodePlugin, new_claim: NewClaim, api: CountingApi
) -> None:
    """The API server has forgotten the claim, the kubelet has not; once its pod has ended it goes. The API server is not asked meanwhile."""
    claim = new_claim(WHOLE)
    await node.prepare(claim)
    delete(api, claim)
    node.in_use = {("default", claim["metadata"]["name"])}
    assert await look(node)
    gets = api.gets
    for _ in range(3):
        assert await look(node, after_s=CONFIRM_S)
    assert api.gets == gets
    node.in_use = set()
    assert not await look(node, after_s=CONFIRM_S)


async def test_no_answer_is_no_reason(
    node: NodePlugin, new_claim: NewClaim, api: CountingApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of the API server nor of the kubelet."""
    claim = new_claim(WHOLE)
    await node.prepare(claim)
    api.unavailable = True
    for _ in range(3):
        assert await look(node, after_s=CONFIRM_S)
    api.unavailable = False
    delete(api, claim)
    assert await look(node)

    async def silent() -> set[tuple[str, str]]:
        raise KubeletUnavailable("no socket")

    monkeypatch.setattr(node.node.reconciler._witnesses, "_in_use", silent)
    for _ in range(3):
        assert await look(node, after_s=CONFIRM_S)


async def test_an_api_server_that_is_away_is_asked_once_a_look(
    node: NodePlugin, new_claim: NewClaim, api: CountingApi
) -> None:
    """Not once for each claim."""
    for device in (SMALL, OTHER):
        await node.prepare(new_claim(device))
    api.unavailable, before = True, api.gets
    await look(node)
    assert api.gets == before + 1


async def test_what_was_prepared_anew_meanwhile_is_not_released(
    node: NodePlugin, new_claim: NewClaim, api: CountingApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers were about what the claim held then."""
    claim = new_claim(SMALL)
    await node.prepare(claim)
    delete(api, claim)
    assert await look(node)
    agree = node.node.reconciler._witnesses.agree_that_gone

    async def agree_late(about: ClaimRecord) -> bool:
        agreed = await agree(about)
        await node.unprepare(claim)
        claim["status"]["allocation"]["devices"]["results"][0]["device"] = OTHER
        api.claims[claim["metadata"]["name"]] = claim
        await node.prepare(claim)
        return agreed

    monkeypatch.setattr(node.node.reconciler._witnesses, "agree_that_gone", agree_late)
    assert await look(node, after_s=CONFIRM_S)
    assert [grant.device for one in node.state.records.values() for grant in one.grants] == [OTHER]


class Virtual:
    """A node whose reconciler runs, in virtual time."""

    def __init__(self, folder: Path, api: CountingApi) -> None:
        self._machine = machine_of("H100-SXM5-80GB")
        self.plugin = NodePlugin(folder, self._machine, api)

    async def __aenter__(self) -> NodePlugin:
        setattr(self.plugin, "clock", virtual_time.LoopClock())  # noqa: B010 (a test's clock for another)
        await self.plugin.start()
        self._running = asyncio.create_task(self.plugin.node.reconciler.run())
        return self.plugin

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.wait([self._running])


@pytest.fixture
def virtual(tmp_path: Path, api: CountingApi, monkeypatch: pytest.MonkeyPatch) -> Virtual:
    monkeypatch.setattr(node_parts, "Workers", virtual_time.VirtualWorkers)
    return Virtual(tmp_path, api)


def test_all_claims_are_looked_at_every_ten_minutes(
    virtual: Virtual, new_claim: NewClaim, api: CountingApi
) -> None:
    """And nobody is asked in between, as long as nothing speaks for it."""

    async def main() -> None:
        async with virtual as node:
            claim = new_claim(WHOLE)
            await node.prepare(claim)
            gets = api.gets
            await asyncio.sleep(INTERVAL_S * 0.85)
            assert api.gets == gets
            delete(api, claim)
            await asyncio.sleep(INTERVAL_S * 0.3 + CONFIRM_S)
            assert not node.state.records

    virtual_time.run(main())


def test_a_claim_that_somebody_waits_for_is_looked_at_at_once(
    virtual: Virtual, new_claim: NewClaim, api: CountingApi
) -> None:
    """It is gone from the API: who waits for its device is served in the same call."""

    async def main() -> None:
        async with virtual as node:
            gone = new_claim(WHOLE)
            await node.prepare(gone)
            delete(api, gone)
            await asyncio.sleep(60)
            began = asyncio.get_running_loop().time()
            assert len(await node.prepare(new_claim(SMALL))) == 1
            took_s = asyncio.get_running_loop().time() - began
            assert CONFIRM_S <= took_s < CONFIRM_S + 2 < DEADLINE_S

    virtual_time.run(main())


def test_a_claim_given_back_between_two_answers_keeps_no_other_from_being_looked_at(
    virtual: Virtual, new_claim: NewClaim, api: CountingApi
) -> None:
    """One first answer that is never confirmed does not stop the look at all claims, nor make looks more frequent."""

    async def main() -> None:
        async with virtual as node:
            first, other = new_claim(WHOLE), new_claim(OTHER)
            await node.prepare(first)
            await node.prepare(other)
            delete(api, first)
            node.node.reconciler.suspect(ref(first).uid)
            await asyncio.sleep(1)
            await node.unprepare(first)
            delete(api, other)
            await asyncio.sleep(INTERVAL_S * 1.15 + CONFIRM_S)
            assert not node.state.records

    virtual_time.run(main())


async def test_a_release_that_failed_is_tried_again(
    node: NodePlugin, new_claim: NewClaim, api: CountingApi, tmp_path: Path
) -> None:
    """No call will ever come for a claim that is gone."""
    claim = new_claim(SMALL)
    await node.prepare(claim)
    delete(api, claim)
    set_faults(tmp_path / "hardware", {GPU: {"error": "IN_USE", "calls": DESTROYING}})
    await look(node)
    assert await look(node, after_s=CONFIRM_S)
    set_faults(tmp_path / "hardware", {})
    assert not await look(node, after_s=INTERVAL_S)
    assert node.leftovers() == []


async def test_half_done_work_of_a_claim_that_is_gone_is_undone(
    node: NodePlugin, new_claim: NewClaim, api: CountingApi, tmp_path: Path
) -> None:
    """A prepare failed, and so did its undo; then the claim was deleted by force."""
    claim = new_claim(SMALL)
    failing = [*DESTROYING, "create_compute_instance"]
    set_faults(tmp_path / "hardware", {GPU: {"error": "IN_USE", "calls": failing}})
    with pytest.raises(VendorError):
        await node.prepare(claim)
    assert node.state.records
    set_faults(tmp_path / "hardware", {})
    delete(api, claim)
    assert not await look(node)
    assert node.leftovers() == []


async def test_a_claim_that_was_given_another_device_loses_the_former_one(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """The node was lost and came back: same claim, same node, another GPU by now."""
    claim = new_claim(SMALL)
    await node.prepare(claim)
    claim["status"]["allocation"]["devices"]["results"][0]["device"] = OTHER
    await look(node)
    assert not await look(node, after_s=CONFIRM_S)
    (cdi_id,) = await node.prepare(claim)
    assert cdi_id.endswith(OTHER)
