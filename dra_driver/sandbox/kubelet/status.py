"""Pod and node objects as the kubelet writes them."""

from __future__ import annotations

from datetime import UTC, datetime

from dra_driver.model import kinds
from dra_driver.ports import JsonObject


def running(pod: JsonObject) -> JsonObject:
    """Patch: all containers run, the pod is ready; init containers are through."""
    now = _timestamp()
    started = {"running": {"startedAt": now}}
    completed = {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": now}}
    spec = pod["spec"]
    return {
        "status": {
            "phase": "Running",
            "message": None,
            "reason": None,
            "hostIP": "127.0.0.1",
            "startTime": now,
            "conditions": _conditions(pod, status="True"),
            "initContainerStatuses": [
                _container(c, completed, ready=True) for c in spec.get("initContainers", ())
            ],
            "containerStatuses": [_container(c, started, ready=True) for c in spec["containers"]],
        }
    }


def waiting(pod: JsonObject, *, reason: str, message: str) -> JsonObject:
    """Patch: the pod stays Pending, and says why."""
    creating = {"waiting": {"reason": "ContainerCreating"}}
    containers = [_container(c, creating, ready=False) for c in pod["spec"]["containers"]]
    return {
        "status": {
            "phase": "Pending",
            "reason": reason,
            "message": message,
            "conditions": _conditions(pod, status="False", reason=reason, message=message),
            "containerStatuses": containers,
        }
    }


def node(name: str) -> JsonObject:
    """The Node as it registers itself."""
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    return {
        "apiVersion": kinds.NODE.api_version,
        "kind": kinds.NODE.kind,
        "metadata": {"name": name, "labels": labels},
        "spec": {},
    }


def node_ready(version: str) -> JsonObject:
    """Patch: the node takes pods."""
    now = _timestamp()
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "the sandbox's kubelet is posting ready status",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    return {"status": {"conditions": [ready], "nodeInfo": {"kubeletVersion": version}}}


def _conditions(
    pod: JsonObject, *, status: str, reason: str = "", message: str = ""
) -> list[JsonObject]:
    """The pod's conditions with the kubelet's own replaced: a merge patch knows no list items."""
    ours = ("Initialized", "ContainersReady", "Ready")
    others = [c for c in pod.get("status", {}).get("conditions", []) if c["type"] not in ours]
    said = {key: text for key, text in (("reason", reason), ("message", message)) if text}
    stamp = {"status": status, "lastTransitionTime": _timestamp(), **said}
    return [*others, *({"type": kind, **stamp} for kind in ours)]


def _container(container: JsonObject, state: JsonObject, *, ready: bool) -> JsonObject:
    return {
        "name": container["name"],
        "image": container.get("image", ""),
        "imageID": "",
        "ready": ready,
        "started": ready,
        "restartCount": 0,
        "state": state,
    }


def _timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
