from __future__ import annotations

import json

import pytest

from tests.sandbox.kubelet.lab import Lab


@pytest.mark.parametrize(
    ("services", "called"),
    [
        (["v1.DRAPlugin", "v1beta1.DRAPlugin"], "v1.DRAPlugin"),
        (["v1beta1.DRAPlugin", "v1.DRAPlugin"], "v1beta1.DRAPlugin"),
        (["v1alpha3.Node", "v1beta1.DRAPlugin"], "v1beta1.DRAPlugin"),
    ],
)
async def test_the_plugin_s_first_known_version_is_called(
    lab: Lab, services: list[str], called: str
) -> None:
    """For every call: the plugin's order decides, not the kubelet's taste."""
    driver = lab.driver(services=[one for one in services if one.endswith("DRAPlugin")])
    driver.info.supported_versions[:] = services
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "gpu")
        await lab.until_running("pod")
        await lab.delete_pod("pod")
        await lab.until_gone("pod")
    assert (driver.prepared, driver.unprepared) == ([["gpu"]], [["gpu"]])
    assert driver.called == {called}


@pytest.mark.parametrize(
    ("service", "shares"),
    [("v1.DRAPlugin", ["a", "b"]), ("v1beta1.DRAPlugin", [None, None])],
)
async def test_shares_are_known_in_v1_alone(
    lab: Lab, service: str, shares: list[str | None]
) -> None:
    """One device twice, each time with its share and its CDI device, kept over restarts; v1beta1 has no field for that."""
    driver = lab.driver(services=[service])
    driver.shares = {"gpu": ("a", "b")}
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "gpu")
        await lab.until_running("pod")
        kept = json.loads((lab.root / "dra_manager_state.json").read_text())["claims"]
    devices = kept[0]["drivers"]["a.example.com"]
    assert [device["device"] for device in devices] == ["gpu-gpu", "gpu-gpu"]
    assert [device["share_id"] for device in devices] == shares
    names = [node["path"] for node in lab.view("pod")[0]["deviceNodes"]]
    assert names == ["/dev/gpu-gpu-a", "/dev/gpu-gpu-b"]
