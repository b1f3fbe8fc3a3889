"""The reference model: a DRA driver as drivers are usually written, to compare with where no peer's program is at hand.

All claims are in one checkpoint file. When a claim is begun, when it is done and when it is released, it is read, its checksum
verified over what is encoded anew, and rewritten whole (temporary file, fsync, rename), under one lock: so do drivers that use the
kubelet's checkpoint manager, NVIDIA's and the example driver among them. Everything else is as cheap as can be: one GET
outside of the lock, a constant CDI file, no planning and no checks. `python -m tests.bench.reference SERVER DATA REGISTRY CDI`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import zlib
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio

from dra_driver.ports import JsonObject
from dra_driver.wire.dra_v1 import api_pb2, api_pb2_grpc
from dra_driver.wire.registration_v1 import api_pb2 as registration
from dra_driver.wire.registration_v1 import api_pb2_grpc as registration_grpc
from tests.bench.objects import NODE_NAME

DRIVER = "reference.dra-driver.dev"
DEVICES = tuple(f"gpu-{index}" for index in range(8))


class Checkpoint:
    """Every claim's record, in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.exists():
            self._write({})

    def record(self, uid: str) -> JsonObject | None:
        """What the file says of the claim."""
        return self._read().get(uid)

    def change(self, uid: str, record: JsonObject | None) -> None:
        """The file says this of the claim, or nothing, durably."""
        claims = self._read()
        claims.pop(uid, None)
        if record is not None:
            claims[uid] = record
        self._write(claims)

    def _read(self) -> dict[str, JsonObject]:
        stored = json.loads(self._path.read_bytes())
        claims: dict[str, JsonObject] = stored["claims"]
        assert stored["checksum"] == zlib.crc32(json.dumps(claims).encode())
        return claims

    def _write(self, claims: dict[str, JsonObject]) -> None:
        encoded = json.dumps(claims)
        text = f'{{"claims": {encoded}, "checksum": {zlib.crc32(encoded.encode())}}}'
        draft = self._path.with_suffix(".draft")
        with draft.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self._path)


class Driver(api_pb2_grpc.DRAPluginServicer):
    """Prepares and releases under one lock."""

    def __init__(self, server: str, data: Path, cdi: Path) -> None:
        self._server = server
        self._cdi = cdi
        self._checkpoint = Checkpoint(data / "checkpoint.json")
        self._lock = asyncio.Lock()
        self._session = aiohttp.ClientSession()

    async def close(self) -> None:
        """Leave the API server."""
        await self._session.close()

    async def publish(self) -> None:
        """One slice with eight devices, unless it is there."""
        url = f"{self._server}/apis/resource.k8s.io/v1/resourceslices"
        pool = {"name": NODE_NAME, "generation": 1, "resourceSliceCount": 1}
        spec = {"driver": DRIVER, "nodeName": NODE_NAME, "pool": pool}
        body = {
            "metadata": {"name": f"{NODE_NAME}-{DRIVER}"},
            "spec": spec | {"devices": [{"name": name} for name in DEVICES]},
        }
        async with self._session.post(url, json=body) as answer:
            assert answer.status in {200, 409}

    async def NodePrepareResources(  # noqa: N802 - the contract's name
        self, request: api_pb2.NodePrepareResourcesRequest, context: Any
    ) -> api_pb2.NodePrepareResourcesResponse:
        """Devices for each claim."""
        answers = await asyncio.gather(*(self._prepare(claim) for claim in request.claims))
        claims = {claim.uid: a for claim, a in zip(request.claims, answers, strict=True)}
        return api_pb2.NodePrepareResourcesResponse(claims=claims)

    async def NodeUnprepareResources(  # noqa: N802 - the contract's name
        self, request: api_pb2.NodeUnprepareResourcesRequest, context: Any
    ) -> api_pb2.NodeUnprepareResourcesResponse:
        """Every claim is released."""
        for claim in request.claims:
            async with self._lock:
                self._spec(claim.uid).unlink(missing_ok=True)
                await asyncio.to_thread(self._checkpoint.change, claim.uid, None)
        done = {claim.uid: api_pb2.NodeUnprepareResourceResponse() for claim in request.claims}
        return api_pb2.NodeUnprepareResourcesResponse(claims=done)

    async def _prepare(self, claim: api_pb2.Claim) -> api_pb2.NodePrepareResourceResponse:
        async with self._lock:
            known = await asyncio.to_thread(self._checkpoint.record, claim.uid)
        if known is None or known["state"] != "PrepareCompleted":
            known = await self._prepare_anew(claim)
        devices = [api_pb2.Device(**device) for device in known["devices"]]
        return api_pb2.NodePrepareResourceResponse(devices=devices)

    async def _prepare_anew(self, claim: api_pb2.Claim) -> JsonObject:
        path = f"/apis/resource.k8s.io/v1/namespaces/{claim.namespace}/resourceclaims/{claim.name}"
        async with self._session.get(self._server + path) as answer:
            found = await answer.json()
        results = found["status"]["allocation"]["devices"]["results"]
        devices = [
            {
                "request_names": [result["request"]],
                "pool_name": result["pool"],
                "device_name": result["device"],
                "cdi_device_ids": [f"{DRIVER}/claim={claim.uid}-{result['device']}"],
            }
            for result in results
        ]
        record: JsonObject = {"namespace": claim.namespace, "name": claim.name, "results": results}
        async with self._lock:
            begun = record | {"state": "PrepareStarted"}
            await asyncio.to_thread(self._checkpoint.change, claim.uid, begun)
            await asyncio.to_thread(self._write_spec, claim.uid, devices)
            record |= {"state": "PrepareCompleted", "devices": devices}
            await asyncio.to_thread(self._checkpoint.change, claim.uid, record)
        return record

    def _spec(self, uid: str) -> Path:
        return self._cdi / f"{DRIVER}_{uid}.json"

    def _write_spec(self, uid: str, devices: list[JsonObject]) -> None:
        edits = {"env": ["GPU=0"], "deviceNodes": [{"path": "/dev/null"}]}
        named = [{"name": f"{uid}-{d['device_name']}", "containerEdits": edits} for d in devices]
        spec = {"cdiVersion": "0.6.0", "kind": f"{DRIVER}/claim", "devices": named}
        draft = self._spec(uid).with_suffix(".draft")
        draft.write_text(json.dumps(spec))
        draft.rename(self._spec(uid))


class Registration(registration_grpc.RegistrationServicer):
    """Says where the driver serves."""

    def __init__(self, endpoint: Path) -> None:
        self._endpoint = endpoint

    async def GetInfo(  # noqa: N802 - the contract's name
        self, request: registration.InfoRequest, context: Any
    ) -> registration.PluginInfo:
        """Name and socket."""
        return registration.PluginInfo(
            type="DRAPlugin",
            name=DRIVER,
            endpoint=str(self._endpoint),
            supported_versions=["v1.DRAPlugin"],
        )

    async def NotifyRegistrationStatus(  # noqa: N802 - the contract's name
        self, request: registration.RegistrationStatus, context: Any
    ) -> registration.RegistrationStatusResponse:
        """Whatever it says."""
        return registration.RegistrationStatusResponse()


async def main(server: str, data: Path, registry: Path, cdi: Path) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    driver, endpoint = Driver(server, data, cdi), data / "dra.sock"
    service, introduction = grpc.aio.server(), grpc.aio.server()
    api_pb2_grpc.add_DRAPluginServicer_to_server(driver, service)
    registration_grpc.add_RegistrationServicer_to_server(Registration(endpoint), introduction)
    service.add_insecure_port(f"unix:{endpoint}")
    introduction.add_insecure_port(f"unix:{registry / f'{DRIVER}-reg.sock'}")
    await service.start()
    await introduction.start()
    await driver.publish()
    await stop.wait()
    await introduction.stop(0)
    await service.stop(1)
    await driver.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(Path, sys.argv[2:])))
