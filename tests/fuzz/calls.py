"""Bytes on the plugin's sockets: whatever comes, the process lives, and each claim that was understood has its own answer."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from random import Random
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError, Message

from dra_driver.wire.dra_v1 import api_pb2
from dra_driver.wire.registration_v1 import api_pb2 as registration_pb2
from dra_driver.wire.sockets import serving
from kubelet_plugin.registration import Registration
from kubelet_plugin.service import DraService
from tests.fuzz.claims import CLAIMS
from tests.fuzz.mutation import WORDS, mutated_bytes
from tests.kubelet_plugin.conftest import CountingApi, NodePlugin, machine_of

PREPARE = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources"
UNPREPARE = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources"
GET_INFO = "/pluginregistration.Registration/GetInfo"
NOTIFY = "/pluginregistration.Registration/NotifyRegistrationStatus"

CALL_S = 3.5
"""More than the plugin keeps back for its answer, and too little to wait for a device that another claim holds."""
_CHECK_EVERY = 100
_REQUEST = api_pb2.NodePrepareResourcesRequest
"""Also as good as the request of an unprepare: their fields are the same."""
_ANSWERS: dict[str, Any] = {
    PREPARE: api_pb2.NodePrepareResourcesResponse,
    UNPREPARE: api_pb2.NodeUnprepareResourcesResponse,
}
_INFO, _STATUS = registration_pb2.InfoRequest, registration_pb2.RegistrationStatus
_REGISTRY: dict[type[Message], str] = {_INFO: GET_INFO, _STATUS: NOTIFY}


def fuzz_calls(inputs: Iterable[Random]) -> int:
    """No call meets a bug or goes unanswered, and honest ones work in between. Returns how many answers claims were given."""
    return asyncio.run(_fuzz(inputs))


async def _fuzz(inputs: Iterable[Random]) -> int:
    folder = Path(tempfile.mkdtemp(prefix="dra-"))
    try:
        async with _plugin(folder) as (dra, registry):
            answers = 0
            for number, random in enumerate(inputs):
                if random.random() < 0.02:
                    _send_noise(random, random.choice((folder / "dra.sock", folder / "reg.sock")))
                elif random.random() < 0.02:
                    await _check_unknown_method(random, dra)
                elif random.random() < 0.1:
                    kind = random.choice((_INFO, _STATUS))
                    await _call(registry, _REGISTRY[kind], _noise(random), kind)
                else:
                    answers += await _ask(random, dra)
                if number % _CHECK_EVERY == 0:
                    await _check_honest_calls(dra, registry)
            await _check_honest_calls(dra, registry)
            return answers
    finally:
        shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def _plugin(folder: Path) -> AsyncIterator[tuple[grpc.aio.Channel, grpc.aio.Channel]]:
    """A plugin on two sockets, and channels to them; its API server knows one claim."""
    api = CountingApi({CLAIMS[0]["metadata"]["name"]: CLAIMS[0]})
    node = await NodePlugin(folder, machine_of("H100-SXM5-80GB"), api).start()
    dra, registry = folder / "dra.sock", folder / "reg.sock"
    service, registration = DraService(node.claims), Registration(driver="d", endpoint=dra)
    async with (
        serving(dra, service.add_to),
        serving(registry, registration.add_to),
        grpc.aio.insecure_channel(f"unix:{dra}") as to_dra,
        grpc.aio.insecure_channel(f"unix:{registry}") as to_registry,
    ):
        yield to_dra, to_registry


async def _ask(random: Random, dra: grpc.aio.Channel) -> int:
    """Prepare or unprepare; returns how many claims were answered."""
    method = random.choice((PREPARE, UNPREPARE))
    sent = _request(random)
    received = await _call(dra, method, sent, _REQUEST)
    if received is None:
        return 0
    answered = _ANSWERS[method].FromString(received).claims
    assert set(answered) == {claim.uid for claim in _REQUEST.FromString(sent).claims}
    for uid, answer in answered.items():
        assert not answer.error.startswith("InternalError"), (uid, answer.error)
    return len(answered)


async def _call(
    channel: grpc.aio.Channel, method: str, sent: bytes, kind: type[Message]
) -> bytes | None:
    """The answer's bytes; None where the bytes are no message of that kind, which gRPC itself refuses."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    try:
        return await call(sent, timeout=CALL_S)
    except grpc.aio.AioRpcError as error:
        details = error.details() or ""
    assert "DecodeError" in details, (method, sent, details)
    with contextlib.suppress(DecodeError):
        kind.FromString(sent)
        raise AssertionError(f"a good {kind.__name__} was refused: {sent!r}")
    return None


async def _check_unknown_method(random: Random, channel: grpc.aio.Channel) -> None:
    method = random.choice((f"{PREPARE}s", "/", "/a/b", PREPARE.replace("v1", "v9")))
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    with contextlib.suppress(grpc.aio.AioRpcError):
        await call(_noise(random), timeout=CALL_S)
        raise AssertionError(f"{method} was answered")


async def _check_honest_calls(dra: grpc.aio.Channel, registry: grpc.aio.Channel) -> None:
    info = await _call(registry, GET_INFO, b"", _INFO)
    assert info is not None
    assert registration_pb2.PluginInfo.FromString(info).name == "d"
    sent = _REQUEST(claims=[_claim(CLAIMS[0])]).SerializeToString()
    prepared = await _call(dra, PREPARE, sent, _REQUEST)
    assert prepared is not None
    (answer,) = api_pb2.NodePrepareResourcesResponse.FromString(prepared).claims.values()
    assert (answer.error, len(answer.devices)) == ("", 1)


def _request(random: Random) -> bytes:
    """A request of up to four claims, some known, some with odd names and UIDs; half of them with wrong bytes."""
    claims = [_claim(random.choice(CLAIMS)) for _ in range(random.randrange(5))]
    for claim in claims:
        if random.random() < 0.5:
            word = random.choice(WORDS).encode(errors="replace").decode()
            setattr(claim, random.choice(("uid", "uid", "name", "namespace")), word)
    sent = _REQUEST(claims=claims).SerializeToString()
    return mutated_bytes(random, sent) if random.random() < 0.5 else sent


def _claim(body: Any) -> api_pb2.Claim:
    metadata = body["metadata"]
    return api_pb2.Claim(
        namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"]
    )


def _noise(random: Random) -> bytes:
    return mutated_bytes(random, registration_pb2.RegistrationStatus(error="x").SerializeToString())


def _send_noise(random: Random, path: Path) -> None:
    """Something that is not even HTTP/2, from a client that does not wait."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
        client.sendall(random.randbytes(random.randrange(1, 300)))
