from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from dra_driver.wire.registration_v1 import api_pb2, api_pb2_grpc
from dra_driver.wire.sockets import serving
from kubelet_plugin.registration import Registration


@pytest.fixture
async def registration() -> Registration:
    return Registration(driver="gpu.dra-driver.dev", endpoint=Path("/plugins/gpu/dra.sock"))


@pytest.fixture
async def kubelet(
    registration: Registration, tmp_path: Path
) -> AsyncIterator[api_pb2_grpc.RegistrationAsyncStub]:
    path = tmp_path / "reg.sock"
    channel = grpc.aio.insecure_channel(f"unix:{path}")
    async with serving(path, registration.add_to), channel:
        yield api_pb2_grpc.RegistrationStub(channel)


async def test_the_kubelet_learns_who_we_are(kubelet: api_pb2_grpc.RegistrationAsyncStub) -> None:
    """Type, name, absolute endpoint, and the services that we serve, the preferred one first."""
    info = await kubelet.GetInfo(api_pb2.InfoRequest(), timeout=1)
    assert info == api_pb2.PluginInfo(
        type="DRAPlugin",
        name="gpu.dra-driver.dev",
        endpoint="/plugins/gpu/dra.sock",
        supported_versions=[
            "v1.DRAPlugin",
            "v1beta1.DRAPlugin",
            "v1.DRAResourceHealth",
            "v1alpha1.DRAResourceHealth",
        ],
    )


async def test_a_registration_is_noted_until_a_refusal(
    registration: Registration, kubelet: api_pb2_grpc.RegistrationAsyncStub
) -> None:
    """`registered` follows the kubelet's last word, and the refusal's cause is kept and logged."""
    assert not registration.registered.is_set()
    await kubelet.NotifyRegistrationStatus(api_pb2.RegistrationStatus(plugin_registered=True))
    assert registration.registered.is_set()
    assert not registration.error
    with capture_logs() as lines:
        await kubelet.NotifyRegistrationStatus(api_pb2.RegistrationStatus(error="no such version"))
    assert (registration.registered.is_set(), registration.error) == (False, "no such version")
    assert [(line["log_level"], line["error"]) for line in lines] == [("error", "no such version")]
