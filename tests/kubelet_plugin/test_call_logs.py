"""What a kubelet's call leaves in the log: whose it is on every line, and no secret on any."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, MutableMapping
from pathlib import Path
from typing import Any, cast

import grpc.aio
import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from dra_driver.kube.endpoint import Endpoint
from dra_driver.kube.rest import RestApi
from dra_driver.kube.tokens import FixedToken
from dra_driver.observe.log import configure
from dra_driver.ports import JsonObject
from dra_driver.wire.dra_v1 import api_pb2, api_pb2_grpc
from dra_driver.wire.sockets import serving
from kubelet_plugin.service import DraService
from tests.kubelet_plugin.conftest import CountingApi, NewClaim, NodePlugin, ref

SECRET = "eyJhbGciOi.JIUzI1NiJ9.c2VjcmV0"
SLICE = "gpu-0000-1b-00-0-mig-1g-10gb-0"


@pytest.fixture
async def kubelet(node: NodePlugin) -> AsyncIterator[api_pb2_grpc.DRAPluginAsyncStub]:
    """A connection to the node's plugin, over its socket."""
    folder = Path(tempfile.mkdtemp(prefix="dra-"))
    channel = grpc.aio.insecure_channel(f"unix:{folder / 'dra.sock'}")
    async with (
        serving(folder / "dra.sock", DraService(node.claims, node.telemetry).add_to),
        channel,
    ):
        yield api_pb2_grpc.DRAPluginStub(channel)
    shutil.rmtree(folder)


@pytest.fixture
def _own_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def message(claim: JsonObject) -> api_pb2.Claim:
    claimed = ref(claim)
    return api_pb2.Claim(namespace=claimed.namespace, name=claimed.name, uid=claimed.uid)


async def prepare(
    kubelet: api_pb2_grpc.DRAPluginAsyncStub, *claims: JsonObject, timeout_s: float = 10
) -> dict[str, str]:
    """NodePrepareResources; the errors by the claims' names."""
    request = api_pb2.NodePrepareResourcesRequest(claims=map(message, claims))
    answers = (await kubelet.NodePrepareResources(request, timeout=timeout_s)).claims
    return {claim["metadata"]["name"]: answers[ref(claim).uid].error for claim in claims}


async def test_every_line_of_a_call_says_whose_it_is(
    node: NodePlugin, kubelet: api_pb2_grpc.DRAPluginAsyncStub, new_claim: NewClaim, tmp_path: Path
) -> None:
    """Through all layers (planning, hardware, files, waiting, failing), one `op` for each claim of each call."""
    good, held, odd = new_claim(SLICE), new_claim(SLICE), new_claim("gpu-0000-ff-00-0")
    by_uid = {ref(claim).uid: str(ref(claim)) for claim in (good, held, odd)}
    with capture_logs(processors=[merge_contextvars]) as lines:
        assert await prepare(kubelet, good) == {"claim-1": ""}
        for file in (tmp_path / "cdi").iterdir():
            file.unlink()
        errors = await prepare(kubelet, good, held, odd, timeout_s=3.5)
        assert [bool(error) for error in errors.values()] == [False, True, True]
        request = api_pb2.NodeUnprepareResourcesRequest(claims=[message(good)])
        await kubelet.NodeUnprepareResources(request, timeout=10)
    said = {line["event"] for line in lines}
    assert said >= {
        "hardware change",
        "prepared",
        "the CDI file was gone or changed and is written again",
        "waiting",
        "prepare failed",
        "unprepared",
    }
    for line in lines:
        assert by_uid[line["claim_uid"]] == line["claim"]
    assert_one_call_each(lines)


def assert_one_call_each(lines: list[MutableMapping[str, Any]]) -> None:
    """Five claims were asked for in three calls: good three times, the others once."""
    claims_by_op: dict[str, set[str]] = {}
    for line in lines:
        claims_by_op.setdefault(line["op"], set()).add(line["claim"])
    assert all(len(claims) == 1 for claims in claims_by_op.values())
    assert sorted(claim for [claim] in claims_by_op.values()) == [
        *("default/claim-1",) * 3,
        "default/claim-2",
        "default/claim-3",
    ]


@pytest.mark.usefixtures("_own_logging")
async def test_tokens_appear_nowhere(
    tmp_path: Path,
    node: NodePlugin,
    kubelet: api_pb2_grpc.DRAPluginAsyncStub,
    new_claim: NewClaim,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An API server, or a proxy before it, that repeats our credentials puts them neither into the log nor into an answer."""

    async def repeat(request: web.Request) -> web.StreamResponse:
        headers = dict(request.headers)
        return web.json_response(
            {"kind": "Status", "reason": "Forbidden", "message": f"sent {headers}"}, status=403
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", repeat)
    configure("debug", "json")
    async with TestServer(app) as server:
        endpoint = Endpoint(server=str(server.make_url("/")), token=FixedToken(SECRET))
        async with RestApi(endpoint, component="test") as rest:
            node.api = cast("CountingApi", rest)
            [error] = (await prepare(kubelet, new_claim(SLICE))).values()
    structlog.get_logger().info("sample", endpoint=repr(endpoint), headers={"token": SECRET})
    output = capsys.readouterr()
    assert error.startswith("ApiForbidden: get ResourceClaim default/claim-1")
    events = [json.loads(line)["event"] for line in output.err.splitlines()]
    assert {"prepare failed", "sample"} <= set(events)
    for text in (output.err, output.out, error):
        assert SECRET not in text
        assert "c2VjcmV0" not in text
