"""The chart installed in a real cluster, and the identity that it gives to a node's plugin."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from dra_driver.kube.endpoint import Endpoint
from dra_driver.model.errors import Conflict, NotFound
from dra_driver.model.kinds import NAMESPACE, NODE, POD, RESOURCE_SLICE, Kind
from dra_driver.ports import JsonObject, KubeApi
from tests.chart.rendering import NAMESPACE as RELEASE_NAMESPACE
from tests.chart.rendering import PLUGIN, render
from tests.cluster.controlplane import ControlPlane
from tests.cluster.node import IMAGE
from tests.cluster.waiting import eventually

_RBAC, _ADMISSION = "rbac.authorization.k8s.io", "admissionregistration.k8s.io"
_KINDS = {
    name: Kind(group=group, version="v1", kind=name, plural=plural, namespaced=namespaced)
    for group, name, plural, namespaced in (
        ("", "ServiceAccount", "serviceaccounts", True),
        ("", "ConfigMap", "configmaps", True),
        ("apps", "DaemonSet", "daemonsets", True),
        (_RBAC, "ClusterRole", "clusterroles", False),
        (_RBAC, "ClusterRoleBinding", "clusterrolebindings", False),
        (_ADMISSION, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", False),
        (
            _ADMISSION,
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
            False,
        ),
        ("resource.k8s.io", "DeviceClass", "deviceclasses", False),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """An installed chart."""

    plane: ControlPlane
    api: KubeApi

    async def token_of(self, node: str) -> str:
        """The token that the kubelet would mount into the plugin's pod on that node."""
        name = f"plugin-of-{node}"
        container = {"name": "plugin", "image": IMAGE, "imagePullPolicy": "Never"}
        pod: JsonObject = {
            "metadata": {"name": name},
            "spec": {
                "serviceAccountName": PLUGIN,
                "nodeName": node,
                "hostNetwork": True,
                "terminationGracePeriodSeconds": 0,
                "tolerations": [{"operator": "Exists"}],
                "containers": [container],
            },
        }
        try:
            made = await self.api.create(POD, pod, namespace=RELEASE_NAMESPACE)
        except Conflict:
            made = await self.api.get(POD, name, namespace=RELEASE_NAMESPACE)
        bound = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": made["metadata"]["uid"]}
        return await self._token({"boundObjectRef": bound})

    async def token_without_a_pod(self) -> str:
        """A token of the plugin's service account that no kubelet would mount."""
        return await self._token({})

    async def _token(self, spec: JsonObject) -> str:
        path = f"/api/v1/namespaces/{RELEASE_NAMESPACE}/serviceaccounts/{PLUGIN}/token"
        answer = await asyncio.to_thread(post, self.plane, path, {"spec": spec})
        token: str = answer["status"]["token"]
        return token

    async def access_of(self, node: str) -> dict[str, str]:
        """The plugin's settings that say who it is, as the plugin of that node."""
        path = self.plane.root / f"token-{node}"
        path.write_text(await self.token_of(node))
        return {
            "server": self.plane.server,
            "token-file": str(path),
            "ca-file": str(self.plane.ca_file),
        }

    async def endpoint_of(self, node: str) -> Endpoint:
        """The API server as the plugin of that node sees it."""
        return self.plane.with_token(await self.token_of(node))


@asynccontextmanager
async def installed(
    plane: ControlPlane, api: KubeApi, values: dict[str, Any] | None = None
) -> AsyncIterator[Release]:
    """The chart's objects are in the cluster while the block runs, and gone afterwards; its namespace stays.

    The plugin's rights come and go with them: an API server hears of rights a moment after they are written.
    """
    objects = render(values)
    with suppress(Conflict):
        await api.create(NAMESPACE, {"metadata": {"name": RELEASE_NAMESPACE}})
    created: list[JsonObject] = []
    try:
        for one in objects:
            await api.create(_KINDS[one["kind"]], one)
            created.append(one)
        await eventually(lambda: _may_publish(plane))
        yield Release(plane=plane, api=api)
    finally:
        for one in reversed(created):
            await _delete(api, one)
        for pod in (await api.list(POD, namespace=RELEASE_NAMESPACE)).items:
            name = pod["metadata"]["name"]
            with suppress(NotFound):
                await api.delete(POD, name, namespace=RELEASE_NAMESPACE, grace_period_s=0)
        await eventually(lambda: _lost_its_rights(plane))


@asynccontextmanager
async def node_object(api: KubeApi, name: str) -> AsyncIterator[None]:
    """A Node without a kubelet, which the scheduler may use, while the block runs; its slices go with it."""
    body: JsonObject = {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}
    await api.create(NODE, body)
    try:
        resources = {"cpu": "64", "memory": "512Gi", "pods": "500"}
        ready = {"type": "Ready", "status": "True", "reason": "Test", "message": "as if"}
        status = {"capacity": resources, "allocatable": resources, "conditions": [ready]}
        await api.patch(NODE, name, {"status": status}, subresource="status")
        await api.patch(NODE, name, {"spec": {"taints": None}})
        yield
    finally:
        await api.delete(NODE, name)
        ours = {"fieldSelector": f"spec.nodeName={name}"}
        for item in (await api.list(RESOURCE_SLICE, selectors=ours)).items:
            with suppress(NotFound):
                await api.delete(RESOURCE_SLICE, item["metadata"]["name"])


def post(plane: ControlPlane, path: str, body: JsonObject) -> JsonObject:
    """POST as the administrator, where RestApi has no word for it."""
    token = plane.administrator_token
    request = urllib.request.Request(
        plane.server + path,
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    context = plane.endpoint.ssl_context()
    with urllib.request.urlopen(request, timeout=20, context=context) as answer:
        result: JsonObject = json.load(answer)
    return result


async def _may_publish(plane: ControlPlane) -> bool:
    """Whether the API server lets the plugin's service account write slices."""
    spec = {
        "user": f"system:serviceaccount:{RELEASE_NAMESPACE}:{PLUGIN}",
        "resourceAttributes": {
            "group": RESOURCE_SLICE.group,
            "resource": RESOURCE_SLICE.plural,
            "verb": "create",
        },
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    answer = await asyncio.to_thread(post, plane, path, {"spec": spec})
    return bool(answer["status"]["allowed"])


async def _lost_its_rights(plane: ControlPlane) -> bool:
    return not await _may_publish(plane)


async def _delete(api: KubeApi, one: JsonObject) -> None:
    metadata = one["metadata"]
    with suppress(NotFound):
        await api.delete(_KINDS[one["kind"]], metadata["name"], namespace=metadata.get("namespace"))
