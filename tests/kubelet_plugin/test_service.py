from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from dra_driver.model.claim import ClaimRef
from dra_driver.model.errors import ClaimReplaced, VendorError
from dra_driver.model.record import PreparedDevice
from dra_driver.wire.dra_v1 import api_pb2, api_pb2_grpc
from dra_driver.wire.dra_v1beta1 import api_pb2 as v1beta1_pb2
from dra_driver.wire.dra_v1beta1 import api_pb2_grpc as v1beta1_pb2_grpc
from dra_driver.wire.sockets import serving
from kubelet_plugin.service import CLAIMS_AT_ONCE, DraService
from tests.kubelet_plugin.conftest import Recorded, telemetry_of

Behaviour = Callable[[ClaimRef], Awaitable[tuple[PreparedDevice, ...]]]
DEVICE = PreparedDevice(
    requests=("gpu",),
    pool="node-1/nvidia",
    device="gpu-0000-3b-00-0",
    cdi_ids=("gpu.dra-driver.dev/claim=x",),
)


class ScriptedClaims:
    """Does what a test says for a claim's name; answers one device otherwise."""

    def __init__(self) -> None:
        self.behaviour: dict[str, Behaviour] = {}
        self.deadlines: list[float | None] = []
        self.unprepared: list[ClaimRef] = []

    async def prepare(
        self, claim: ClaimRef, *, deadline: float | None
    ) -> tuple[PreparedDevice, ...]:
        self.deadlines.append(deadline)
        return (
            await self.behaviour[claim.name](claim) if claim.name in self.behaviour else (DEVICE,)
        )

    async def unprepare(self, claim: ClaimRef) -> None:
        self.unprepared.append(claim)
        if claim.name in self.behaviour:
            await self.behaviour[claim.name](claim)

    async def finish_calls(self) -> None:
        pass


@pytest.fixture
def claims() -> ScriptedClaims:
    return ScriptedClaims()


@pytest.fixture
def service(claims: ScriptedClaims) -> DraService:
    return DraService(claims, telemetry_of(Recorded()))


@pytest.fixture
async def channel(service: DraService, tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    path = tmp_path / "dra.sock"
    channel = grpc.aio.insecure_channel(f"unix:{path}")
    async with serving(path, service.add_to), channel:
        yield channel


@pytest.fixture
def kubelet(channel: grpc.aio.Channel) -> api_pb2_grpc.DRAPluginAsyncStub:
    return api_pb2_grpc.DRAPluginStub(channel)


def claim(name: str, uid: str | None = None) -> api_pb2.Claim:
    return api_pb2.Claim(namespace="team", name=name, uid=uid or str(uuid.uuid4()))


def prepare(*asked: api_pb2.Claim) -> api_pb2.NodePrepareResourcesRequest:
    return api_pb2.NodePrepareResourcesRequest(claims=asked)


def failing(error: Exception) -> Behaviour:
    async def fail(_: ClaimRef) -> tuple[PreparedDevice, ...]:
        raise error

    return fail


async def test_devices_are_encoded_field_for_field(
    claims: ScriptedClaims, kubelet: api_pb2_grpc.DRAPluginAsyncStub
) -> None:
    """A share has its ID, anything else has none at all: unset and empty differ on the wire."""
    share = PreparedDevice(
        requests=(), pool="p", device="d-timeslice", cdi_ids=("a/b=c", "a/b=d"), share_id="s-1"
    )

    async def both(_: ClaimRef) -> tuple[PreparedDevice, ...]:
        return DEVICE, share

    claims.behaviour["both"] = both
    asked = claim("both")
    answer = (await kubelet.NodePrepareResources(prepare(asked))).claims[asked.uid]
    assert not answer.error
    first, second = answer.devices
    assert first.request_names == ["gpu"]
    assert (first.pool_name, first.device_name) == ("node-1/nvidia", "gpu-0000-3b-00-0")
    assert first.cdi_device_ids == ["gpu.dra-driver.dev/claim=x"]
    assert not first.HasField("share_id")
    assert second.request_names == []
    assert second.share_id == "s-1"


async def test_each_claim_gets_its_own_answer(
    claims: ScriptedClaims, kubelet: api_pb2_grpc.DRAPluginAsyncStub
) -> None:
    """Errors, bugs and interruptions of one claim stay with that claim."""
    claims.behaviour = {
        "replaced": failing(ClaimReplaced("claim team/replaced has another UID")),
        "bug": failing(ZeroDivisionError("secret")),
        "interrupted": interrupt,
    }
    asked = [claim(name) for name in ("good", "replaced", "bug", "interrupted", "fine")]
    response = await kubelet.NodePrepareResources(prepare(*asked))
    errors = {c.name: response.claims[c.uid].error for c in asked}
    assert errors == {
        "good": "",
        "replaced": "ClaimReplaced: claim team/replaced has another UID",
        "bug": "InternalError: ZeroDivisionError; see this node's plugin log",
        "interrupted": "InternalError: interrupted",
        "fine": "",
    }
    assert len(response.claims) == len(asked)


async def interrupt(_: ClaimRef) -> tuple[PreparedDevice, ...]:
    raise asyncio.CancelledError


async def test_claims_of_a_call_run_at_the_same_time(
    claims: ScriptedClaims, kubelet: api_pb2_grpc.DRAPluginAsyncStub
) -> None:
    """Each waits here until all others have come: one after the other would never end."""
    everyone = asyncio.Barrier(CLAIMS_AT_ONCE)

    async def meet(_: ClaimRef) -> tuple[PreparedDevice, ...]:
        await everyone.wait()
        return ()

    asked = [claim(f"c{number}") for number in range(CLAIMS_AT_ONCE)]
    claims.behaviour = {c.name: meet for c in asked}
    response = await kubelet.NodePrepareResources(prepare(*asked), timeout=10)
    assert set(response.claims) == {c.uid for c in asked}


@pytest.mark.parametrize("uid", ["../../etc", "", "ABCDEFAB-0000-0000-0000-000000000000"])
async def test_a_uid_that_is_no_uuid_reaches_nobody(
    claims: ScriptedClaims, kubelet: api_pb2_grpc.DRAPluginAsyncStub, uid: str
) -> None:
    """UIDs become paths; the answer is under the very UID that was sent."""
    asked = api_pb2.Claim(namespace="team", name="odd", uid=uid)
    prepared = await kubelet.NodePrepareResources(prepare(asked))
    assert prepared.claims[uid].error.startswith("InvalidInput: claim UID")
    request = api_pb2.NodeUnprepareResourcesRequest(claims=[asked])
    unprepared = await kubelet.NodeUnprepareResources(request)
    assert unprepared.claims[uid].error.startswith("InvalidInput: claim UID")
    assert not claims.deadlines
    assert not claims.unprepared


async def test_a_call_of_any_size_is_served_64_claims_at_a_time(
    claims: ScriptedClaims, kubelet: api_pb2_grpc.DRAPluginAsyncStub
) -> None:
    """Whatever a pod asks for is answered; what one call may make us do at once is bounded."""
    running: set[str] = set()
    most = 0
    full = asyncio.Barrier(CLAIMS_AT_ONCE)

    async def note(ref: ClaimRef) -> tuple[PreparedDevice, ...]:
        nonlocal most
        running.add(ref.uid)
        most = max(most, len(running))
        await full.wait()
        running.discard(ref.uid)
        return ()

    asked = [claim(f"c{number}") for number in range(3 * CLAIMS_AT_ONCE)]
    claims.behaviour = {c.name: note for c in asked}
    prepared = await kubelet.NodePrepareResources(prepare(*asked))
    assert set(prepared.claims) == {c.uid for c in asked}
    request = api_pb2.NodeUnprepareResourcesRequest(claims=asked)
    unprepared = await kubelet.NodeUnprepareResources(request)
    assert set(unprepared.claims) == {c.uid for c in asked}
    assert most == CLAIMS_AT_ONCE


async def test_the_end_waits_for_answers_and_not_only_for_claims(
    claims: ScriptedClaims, kubelet: api_pb2_grpc.DRAPluginAsyncStub, service: DraService
) -> None:
    """A call whose claims take turns is one call; when nothing is under way, there is nothing to wait for."""
    await service.finish_calls()
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def wait(_: ClaimRef) -> tuple[PreparedDevice, ...]:
        begun.set()
        await may_end.wait()
        return ()

    asked = [claim(f"c{number}") for number in range(CLAIMS_AT_ONCE + 1)]
    claims.behaviour = {asked[-1].name: wait}
    call = kubelet.NodePrepareResources(prepare(*asked))
    await begun.wait()
    finishing = asyncio.create_task(service.finish_calls())
    await asyncio.sleep(0.05)
    assert not finishing.done()
    may_end.set()
    await finishing
    assert len((await call).claims) == len(asked)


async def test_v1beta1_is_served_as_v1_is(
    claims: ScriptedClaims, channel: grpc.aio.Channel
) -> None:
    """The same devices, errors and releases, and one implementation: but for the share's ID, which that version lacks."""
    share = PreparedDevice(
        requests=("gpu",), pool="p", device="d", cdi_ids=("a/b=c",), share_id="s-1"
    )

    async def shared(_: ClaimRef) -> tuple[PreparedDevice, ...]:
        return (share,)

    claims.behaviour = {"shared": shared, "bad": failing(ClaimReplaced("gone"))}
    names = ("shared", "bad")
    asked = [v1beta1_pb2.Claim(namespace="n", name=name, uid=str(uuid.uuid4())) for name in names]
    old = v1beta1_pb2_grpc.DRAPluginStub(channel)
    request = v1beta1_pb2.NodePrepareResourcesRequest(claims=asked)
    answers = (await old.NodePrepareResources(request)).claims
    [device] = answers[asked[0].uid].devices
    assert device.request_names == ["gpu"]
    assert (device.pool_name, device.device_name) == ("p", "d")
    assert device.cdi_device_ids == ["a/b=c"]
    assert answers[asked[1].uid].error == "ClaimReplaced: gone"
    release = v1beta1_pb2.NodeUnprepareResourcesRequest(claims=asked[:1])
    released = (await old.NodeUnprepareResources(release)).claims
    assert released[asked[0].uid].error == ""
    assert [ref.uid for ref in claims.unprepared] == [asked[0].uid]


async def test_the_caller_s_deadline_is_handed_on(
    claims: ScriptedClaims, kubelet: api_pb2_grpc.DRAPluginAsyncStub
) -> None:
    """In the loop's own time; None where the caller has all day."""
    clock = asyncio.get_running_loop().time
    before = clock()
    await kubelet.NodePrepareResources(prepare(claim("a")), timeout=45)
    after = clock()
    await kubelet.NodePrepareResources(prepare(claim("b")))
    bounded, unbounded = claims.deadlines
    assert bounded is not None
    assert before + 44 < bounded < after + 46
    assert unbounded is None


async def test_a_caller_s_deadline_cancels_and_the_next_call_is_served(
    claims: ScriptedClaims, kubelet: api_pb2_grpc.DRAPluginAsyncStub
) -> None:
    """The work learns of it as a cancellation, and the service lives on. The deadline is far enough for the work to begin."""
    cancelled = asyncio.Event()

    async def hang(_: ClaimRef) -> tuple[PreparedDevice, ...]:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ()

    claims.behaviour["slow"] = hang
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await kubelet.NodePrepareResources(prepare(claim("slow")), timeout=3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(cancelled.wait(), 5)
    asked = claim("next")
    assert (await kubelet.NodePrepareResources(prepare(asked))).claims[asked.uid].devices


async def test_unprepare_answers_each_claim(
    claims: ScriptedClaims, kubelet: api_pb2_grpc.DRAPluginAsyncStub
) -> None:
    """An empty error is success; namespace, name and UID arrive as sent."""
    claims.behaviour["stuck"] = failing(VendorError("GPU 0000:3b:00.0 is busy", retryable=True))
    asked = [claim("good"), claim("stuck")]
    request = api_pb2.NodeUnprepareResourcesRequest(claims=asked)
    response = await kubelet.NodeUnprepareResources(request)
    assert response.claims[asked[0].uid].error == ""
    assert response.claims[asked[1].uid].error == "HardwareError: GPU 0000:3b:00.0 is busy"
    assert claims.unprepared[0] == ClaimRef(namespace="team", name="good", uid=asked[0].uid)


async def test_every_line_of_a_flow_names_the_claim(
    claims: ScriptedClaims, kubelet: api_pb2_grpc.DRAPluginAsyncStub
) -> None:
    """One `op` per claim and call: concurrent flows can be told apart in the log."""
    claims.behaviour["bad"] = failing(ClaimReplaced("gone"))
    asked = [claim("good"), claim("bad")]
    with capture_logs(processors=[merge_contextvars]) as lines:
        await kubelet.NodePrepareResources(prepare(*asked))
    assert {(line["claim"], line["claim_uid"], line["event"]) for line in lines} == {
        ("team/good", asked[0].uid, "prepare done"),
        ("team/bad", asked[1].uid, "prepare failed"),
    }
    assert len({line["op"] for line in lines}) == 2
    assert all(len(line["op"]) == 8 for line in lines)
