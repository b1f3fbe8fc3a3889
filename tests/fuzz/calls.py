"""Bytes on the plugin's sockets: whatever comes, the process lives, and each claim that was understood has its own answer."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError, Message

from dra_driver.ports import JsonObject
from dra_driver.wire.dra_v1 import api_pb2
from dra_driver.wire.registration_v1 import api_pb2 as registration_pb2
from dra_driver.wire.sockets import serving
from kubelet_plugin.registration import Registration
from kubelet_plugin.service import DraService
from tests.fuzz.claims import CLAIMS
from tests.fuzz.mutation import WORDS, mutated_bytes
from tests.kubelet_plugin.conftest import CountingApi, NodePlugin, machine_of

_SERVICES = tuple(
    f"/k8s.io.kubelet.pkg.apis.dra.{version}.DRAPlugin" for version in ("v1", "v1beta1")
)
PREPARE = f"{_SERVICES[0]}/NodePrepareResources"
GET_INFO = "/pluginregistration.Registration/GetInfo"
NOTIFY = "/pluginregistration.Registration/NotifyRegistrationStatus"

CALL_S = 3.5
"""More than the plugin keeps back for its answer, and too little to wait for a device that another claim holds."""
_CHECK_EVERY = 100
_REQUEST = api_pb2.NodePrepareResourcesRequest
"""As good for an unprepare, and for v1beta1: the fields are the same."""
_ANSWERS: dict[str, Any] = {
    "NodePrepareResources": api_pb2.NodePrepareResourcesResponse,
    "NodeUnprepareResources": api_pb2.NodeUnprepareResourcesResponse,
}
_INFO, _STATUS = registration_pb2.InfoRequest, registration_pb2.RegistrationStatus
_REGISTRY: dict[type[Message], str] = {_INFO: GET_INFO, _STATUS: NOTIFY}


def fuzz_calls(inputs: Iterable[Random]) -> int:
    """No call meets a bug or goes unanswered, and honest ones work in between. Returns how many answers claims were given."""
    return asyncio.run(_fuzz(inputs))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plugin:
    """A plugin that serves in this process, channels to its sockets, and the one claim that its API server knows."""

    folder: Path
    dra: grpc.aio.Channel
    registry: grpc.aio.Channel
    claim: JsonObject


async def _fuzz(inputs: Iterable[Random]) -> int:
    folder = Path(tempfile.mkdtemp(prefix="dra-"))
    try:
        async with _serving(folder) as plugin:
            answers = 0
            for number, random in enumerate(inputs):
                answers += await _try(random, plugin)
                if number % _CHECK_EVERY == 0:
                    await _check_honest_calls(plugin, number)
            await _check_honest_calls(plugin, -1)
            return answers
    finally:
        shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def _serving(folder: Path) -> AsyncIterator[_Plugin]:
    claim = copy.deepcopy(CLAIMS[0])
    api = CountingApi({claim["metadata"]["name"]: claim})
    node = await NodePlugin(folder, machine_of("H100-SXM5-80GB"), api).start()
    dra, registry = folder / "dra.sock", folder / "reg.sock"
    service = DraService(node.claims, node.telemetry)
    registration = Registration(driver="d", endpoint=dra)
    async with (
        serving(dra, service.add_to),
        serving(registry, registration.add_to),
        grpc.aio.insecure_channel(f"unix:{dra}") as to_dra,
        grpc.aio.insecure_channel(f"unix:{registry}") as to_registry,
    ):
        yield _Plugin(folder=folder, dra=to_dra, registry=to_registry, claim=claim)


async def _try(random: Random, plugin: _Plugin) -> int:
    """One input; returns how many claims were answered."""
    if random.random() < 0.02:
        _send_noise(random, plugin.folder / random.choice(("dra.sock", "reg.sock")))
    elif random.random() < 0.02:
        await _check_unknown_method(random, plugin.dra)
    elif random.random() < 0.1:
        kind = random.choice((_INFO, _STATUS))
        await _call(plugin.registry, _REGISTRY[kind], _noise(random), kind)
    else:
        _touch(plugin, random.getrandbits(64))
        return await _ask(random, plugin.dra)
    return 0


async def _ask(random: Random, dra: grpc.aio.Channel) -> int:
    """Prepare or unprepare; returns how many claims were answered."""
    operation = random.choice(tuple(_ANSWERS))
    sent = _request(random)
    received = await _call(dra, f"{random.choice(_SERVICES)}/{operation}", sent, _REQUEST)
    if received is None:
        return 0
    answered = _ANSWERS[operation].FromString(received).claims
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


def _touch(plugin: _Plugin, version: int) -> None:
    """The claim has another version: a prepare after an unprepare waits for one."""
    plugin.claim["metadata"]["resourceVersion"] = f"new-{version}"


async def _check_honest_calls(plugin: _Plugin, number: int) -> None:
    """GetInfo and prepare do as ever."""
    info = await _call(plugin.registry, GET_INFO, b"", _INFO)
    assert info is not None
    assert registration_pb2.PluginInfo.FromString(info).name == "d"
    _touch(plugin, number)
    sent = _REQUEST(claims=[_claim(plugin.claim)]).SerializeToString()
    prepared = await _call(plugin.dra, PREPARE, sent, _REQUEST)
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
