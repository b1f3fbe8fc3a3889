"""The claims that the benchmark prepares: allocated already, of a claim's usual size, and as the kubelet names them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from dra_driver.ports import JsonObject

NODE_NAME = "bench"
NAMESPACE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A published device, as an allocation names it."""

    driver: str
    pool: str
    name: str


def new_claim(device: Device, *, admin_access: bool) -> JsonObject:
    """A claim that holds the device; with `admin_access` any number of claims may."""
    uid = str(uuid.uuid4())
    name = f"worker-{uid[:8]}-gpu"
    exactly: JsonObject = {"deviceClassName": "bench", "allocationMode": "ExactCount", "count": 1}
    result = {
        "request": "gpu",
        "driver": device.driver,
        "pool": device.pool,
        "device": device.name,
    }
    if admin_access:
        exactly["adminAccess"] = result["adminAccess"] = True  # type: ignore[assignment]
    pod = {"resource": "pods", "name": f"worker-{uid[:8]}", "uid": uid}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {
            "name": name,
            "generateName": f"worker-{uid[:8]}-gpu-",
            "namespace": NAMESPACE,
            "uid": uid,
            "resourceVersion": "1000",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"resource.kubernetes.io/pod-claim-name": "gpu"},
            "finalizers": ["resource.kubernetes.io/delete-protection"],
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": pod["name"], "uid": uid}
            ],
            "managedFields": [_managed("kube-controller-manager"), _managed("kube-scheduler")],
        },
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}},
        "status": {
            "allocation": {"devices": {"results": [result]}, "nodeSelector": _on_the_node()},
            "reservedFor": [pod],
        },
    }


def reference_of(claim: JsonObject) -> dict[str, str]:
    """What the kubelet says of a claim: namespace, name, UID."""
    metadata: Mapping[str, str] = claim["metadata"]
    return {key: metadata[key] for key in ("namespace", "name", "uid")}


def _on_the_node() -> JsonObject:
    term = {"key": "metadata.name", "operator": "In", "values": [NODE_NAME]}
    return {"nodeSelectorTerms": [{"matchFields": [term]}]}


def _managed(manager: str) -> JsonObject:
    fields = {"f:metadata": {"f:finalizers": {".": {}}}, "f:status": {"f:allocation": {}}}
    return {"manager": manager, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields}
