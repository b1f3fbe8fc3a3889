"""Create, replace and patch: identity, versions, generations, conflicts, subresources."""

from __future__ import annotations

from collections.abc import Callable

from dra_driver.model.kinds import (
    DEVICE_CLASS,
)
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver import LocalApi

Build = Callable[..., JsonObject]
SLICES = "/apis/resource.k8s.io/v1/resourceslices"
CLAIMS = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims"
PODS = "/api/v1/namespaces/default/pods"


async def test_local_objects_are_copies(api: LocalApi) -> None:
    """Nobody changes the store by changing what they sent or got."""
    body: JsonObject = {"metadata": {"name": "x"}, "spec": {"config": []}}
    stored = await api.create(DEVICE_CLASS, body)
    body["spec"]["config"].append("garbage")
    stored["spec"]["config"].append("garbage")
    assert (await api.get(DEVICE_CLASS, "x"))["spec"] == {"config": []}
