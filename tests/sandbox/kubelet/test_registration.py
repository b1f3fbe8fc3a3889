from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc.aio
import pytest

from dra_driver.wire.dra_v1 import api_pb2_grpc
from dra_driver.wire.registration_v1 import api_pb2_grpc as registration_pb2_grpc
from dra_driver.wire.sockets import serving
from tests.sandbox.kubelet.driver import Driver, hang
from tests.sandbox.kubelet.lab import SHORT, Lab, eventually


async def until_told(driver: Driver, *statuses: tuple[bool, str]) -> None:
    async def told() -> bool:
        return driver.registrations == list(statuses)

    await eventually(told)


async def test_a_plugin_is_registered_whenever_it_comes(lab: Lab) -> None:
    """Before the kubelet started, or after."""
    early, late = lab.driver(), lab.driver("b.example.com")
    async with early.running(lab.registry), lab.kubelet():
        await until_told(early, (True, ""))
        async with late.running(lab.registry):
            await until_told(late, (True, ""))


async def test_a_plugin_that_restarts_is_registered_again(lab: Lab) -> None:
    """Also when the new socket is there before anybody noticed that the old one was gone."""
    driver = lab.driver()
    async with lab.kubelet():
        async with driver.running(lab.registry):
            await until_told(driver, (True, ""))
        async with driver.running(lab.registry):
            await until_told(driver, (True, ""), (True, ""))


async def test_a_kubelet_that_restarts_registers_again(lab: Lab) -> None:
    """Plugins are found by their sockets, not remembered."""
    driver = lab.driver()
    async with driver.running(lab.registry):
        async with lab.kubelet():
            await until_told(driver, (True, ""))
        async with lab.kubelet():
            await until_told(driver, (True, ""), (True, ""))


async def test_get_info_is_tried_again(lab: Lab) -> None:
    """A plugin that does not answer within its second gets another chance."""
    driver = lab.driver()
    driver.info_script = [hang, hang]
    async with driver.running(lab.registry), lab.kubelet(replace(SHORT, get_info_s=0.3)):
        await until_told(driver, (True, ""))


@pytest.mark.parametrize(
    ("field", "value", "objection"),
    [
        ("type", "CSIPlugin", "no handler for plugin type 'CSIPlugin'"),
        ("name", "not a name", "driver name 'not a name' is not a DNS subdomain"),
        ("endpoint", "dra.sock", "endpoint 'dra.sock' is not an absolute path"),
        ("supported_versions", ["v1alpha3.Node"], "offers v1alpha3.Node"),
        ("supported_versions", [], "offers nothing"),
    ],
)
async def test_what_a_plugin_says_is_checked(
    lab: Lab, field: str, value: object, objection: str
) -> None:
    """The plugin is told why it is refused, and asked again later."""
    driver = lab.driver()
    driver.info.ClearField(field)  # type: ignore[arg-type]
    driver.info.MergeFrom(type(driver.info)(**{field: value}))  # type: ignore[arg-type]
    async with driver.running(lab.registry), lab.kubelet():

        async def refused_twice() -> bool:
            return len(driver.registrations) >= 2

        await eventually(refused_twice)
    registered, error = driver.registrations[0]
    assert not registered
    assert objection in error


async def test_one_endpoint_is_registered_once(lab: Lab) -> None:
    """A second registration socket for the same endpoint is refused; the first stays."""
    first, second = lab.driver(), lab.driver()
    async with first.running(lab.registry), lab.kubelet():
        await until_told(first, (True, ""))
        folder = lab.registry / "second"
        folder.mkdir()
        async with second.registering(folder):

            async def refused() -> bool:
                return bool(second.registrations)

            await eventually(refused)
    assert "already registered with endpoint" in second.registrations[0][1]
    assert first.registrations == [(True, "")]


async def test_hidden_sockets_are_nobody(lab: Lab) -> None:
    """A name that begins with a dot is a socket that is not ready yet."""
    driver, hidden = lab.driver(), lab.driver("hidden.example.com")
    folder = lab.registry / ".hidden"
    folder.mkdir()
    async with hidden.running(folder), driver.running(lab.registry), lab.kubelet():
        await until_told(driver, (True, ""))
        await asyncio.sleep(0.1)
    assert hidden.registrations == []


async def test_one_socket_may_serve_both(lab: Lab) -> None:
    """An empty endpoint means the registration socket itself."""
    driver = lab.driver()
    driver.info.endpoint = ""

    def add_both(server: grpc.aio.Server) -> None:
        api_pb2_grpc.add_DRAPluginServicer_to_server(driver, server)
        registration_pb2_grpc.add_RegistrationServicer_to_server(driver, server)

    await lab.make_claim("gpu")
    async with serving(lab.registry / "both.sock", add_both), lab.kubelet():
        await lab.start_pod("pod", "gpu")
        await lab.until_running("pod")
    assert driver.prepared == [["gpu"]]
