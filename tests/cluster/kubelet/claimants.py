"""Pods that claim partitions, made to measure, and what they must see of them."""

from __future__ import annotations

from typing import Any

from dra_driver.model.kinds import POD, RESOURCE_CLAIM_TEMPLATE
from dra_driver.sandbox.manifests import Manifest
from tests.cluster.controlplane import ControlPlane
from tests.cluster.kubelet.hardware import COMMON_NODES, Hardware, MigDevice
from tests.cluster.kubelet.pods import View, runnable


def keeps_counters(plane: ControlPlane) -> bool:
    """Whether partitions that do not exist yet are published: 1.34 has what that takes switched off."""
    return plane.version >= (1, 36)


def partition(profile: str) -> dict[str, Any]:
    """A request for one partition of that profile."""
    wanted = f'device.attributes["gpu.dra-driver.dev"].profile == "{profile}"'
    return {
        "deviceClassName": "nvidia-mig.dra-driver.dev",
        "selectors": [{"cel": {"expression": wanted}}],
    }


def template(name: str, request: dict[str, Any]) -> Manifest:
    """Claims with that request."""
    devices = {"requests": [{"name": "gpu", "exactly": request}]}
    body = {"metadata": {"name": name}, "spec": {"spec": {"devices": devices}}}
    return Manifest(file="", kind=RESOURCE_CLAIM_TEMPLATE, body=body)


def pod(name: str, template_name: str) -> Manifest:
    """A pod with a claim of that template."""
    container = {
        "name": "main",
        "command": ["sleep", "infinity"],
        "resources": {"claims": [{"name": "gpu"}]},
    }
    spec = {
        "restartPolicy": "Never",
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": template_name}],
        "containers": [container],
    }
    return runnable(Manifest(file="", kind=POD, body={"metadata": {"name": name}, "spec": spec}))


def device_of(view: View, hardware: Hardware) -> MigDevice:
    """The MIG device that the container has: the one that its variables name, whose device nodes are all that it sees."""
    [uuid] = view.uuids
    [device] = [one for one in hardware.mig_devices() if one.uuid == uuid]
    assert view.env["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert view.nodes == COMMON_NODES | device.nodes
    return device
