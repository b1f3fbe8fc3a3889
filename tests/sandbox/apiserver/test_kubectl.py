"""The real kubectl, as a subprocess, finds a cluster."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from dra_driver.model.kinds import EVENT, POD, RESOURCE_CLAIM
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver import ApiServer, LocalApi

Build = Callable[..., JsonObject]
Kubectl: TypeAlias = Callable[..., Awaitable[str]]
KUBECTL = Path(sys.executable).parent / "kubectl"


@pytest.fixture
def kubectl(server: ApiServer, tmp_path: Path) -> Kubectl:
    """Run kubectl with these arguments, `stdin` as its input; return what it printed."""

    async def run(*arguments: str, stdin: Any = None, fails: bool = False) -> str:
        process = await asyncio.create_subprocess_exec(
            KUBECTL,
            f"--server={server.url}",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"HOME": str(tmp_path)},
        )
        output, _ = await process.communicate(json.dumps(stdin).encode())
        text = output.decode()
        assert (process.returncode != 0) is fails, text
        return text

    return run


def columns(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()]


def typed(body: JsonObject, api_version: str, kind: str) -> JsonObject:
    return {"apiVersion": api_version, "kind": kind, **body}


async def test_apply_twice(kubectl: Kubectl, new_pod: Build, new_slice: Build) -> None:
    """The second apply of the same manifest changes nothing; a changed one is merged."""
    pod = typed(new_pod(), "v1", "Pod")
    assert "created" in await kubectl("apply", "-f-", stdin=pod)
    assert "unchanged" in await kubectl("apply", "-f-", stdin=pod)
    pod["metadata"]["labels"] = {"a": "b"}
    assert "configured" in await kubectl("apply", "-f-", stdin=pod)
    assert columns(await kubectl("get", "pod", "-l", "a=b", "--no-headers"))[0][0] == "p"
    one = typed(new_slice(), "resource.k8s.io/v1", "ResourceSlice")
    assert "created" in await kubectl("apply", "-f-", stdin=one)
    assert "unchanged" in await kubectl("apply", "-f-", stdin=one)


async def test_apply_checks_fields_at_the_server(kubectl: Kubectl, new_slice: Build) -> None:
    """A misspelt field is refused by name, because kubectl asks for strict validation."""
    one = typed(new_slice(nodeNames="n1"), "resource.k8s.io/v1", "ResourceSlice")
    assert 'unknown field "spec.nodeNames"' in await kubectl("apply", "-f-", stdin=one, fails=True)


async def test_get_prints_the_real_columns(
    kubectl: Kubectl, server: ApiServer, new_pod: Build, new_slice: Build, new_claim: Build
) -> None:
    """Pods, claims, slices and nodes show what kubectl users know."""
    api = LocalApi(server.store)
    await api.create(POD, new_pod(nodeName="n1"))
    await api.create(RESOURCE_CLAIM, new_claim())
    one = typed(new_slice(), "resource.k8s.io/v1", "ResourceSlice")
    await kubectl("create", "-f-", stdin=one)
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    ready = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "nodeInfo": {"kubeletVersion": "v1.37.1"},
    }
    await kubectl("create", "-f-", stdin=node)
    await kubectl(
        "patch",
        "node",
        "n1",
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps({"status": ready}),
    )
    shown = {
        "pods": [["NAME", "READY", "STATUS", "RESTARTS", "AGE"], ["p", "0/1", "Pending", "0"]],
        "resourceclaims": [["NAME", "STATE", "AGE"], ["c", "pending"]],
        "resourceslices": [
            ["NAME", "NODE", "DRIVER", "POOL", "AGE"],
            ["s", "n1", "gpu.example.com", "n1/x"],
        ],
        "nodes": [["NAME", "STATUS", "ROLES", "AGE", "VERSION"], ["n1", "Ready", "<none>"]],
    }
    for plural, (header, row) in shown.items():
        lines = columns(await kubectl("get", plural))
        assert lines[0] == header
        assert lines[1][: len(row)] == row


async def test_describe_shows_events(kubectl: Kubectl, server: ApiServer, new_pod: Build) -> None:
    """Describe finds the events about an object."""
    api = LocalApi(server.store)
    pod = await api.create(POD, new_pod())
    involved = {"kind": "Pod", "name": "p", "namespace": "default", "uid": pod["metadata"]["uid"]}
    event = {
        "metadata": {"name": "p.1"},
        "involvedObject": involved,
        "type": "Warning",
        "reason": "FailedPrepareDynamicResources",
        "message": "no such device",
    }
    await api.create(EVENT, event, namespace="default")
    described = await kubectl("describe", "pod", "p")
    assert "FailedPrepareDynamicResources" in described
    assert "no such device" in described
    assert "pod/p" in await kubectl("get", "events")


async def test_delete_waits_until_the_object_is_gone(
    kubectl: Kubectl, server: ApiServer, new_claim: Build
) -> None:
    """Kubectl delete returns only after the last finalizer went."""
    api = LocalApi(server.store)
    claim = new_claim()
    claim["metadata"]["finalizers"] = ["example.com/held"]
    await api.create(RESOURCE_CLAIM, claim)
    deletion = asyncio.ensure_future(kubectl("delete", "resourceclaim", "c"))
    watch = api.watch(RESOURCE_CLAIM, resource_version="0")
    while "deletionTimestamp" not in (await anext(watch)).object["metadata"]:
        pass
    assert not deletion.done()
    await api.patch(RESOURCE_CLAIM, "c", {"metadata": {"finalizers": None}}, namespace="default")
    assert "deleted" in await deletion


async def test_wait_follows_conditions(kubectl: Kubectl, definition: JsonObject) -> None:
    """`kubectl wait` sees a condition; a new definition is established and listed at once."""
    await kubectl("create", "-f-", stdin=definition)
    await kubectl("wait", "--for=condition=established", "crd/widgets.example.com")
    assert "widgets" in await kubectl("api-resources", "--api-group=example.com")
    widget = {
        "apiVersion": "example.com/v1alpha1",
        "kind": "Widget",
        "metadata": {"name": "w"},
        "spec": {"size": 3},
    }
    assert "created" in await kubectl("apply", "-f-", stdin=widget)
    assert "unchanged" in await kubectl("apply", "-f-", stdin=widget)
    assert columns(await kubectl("get", "wd")) == [["NAME", "SIZE"], ["w", "3"]]


async def test_explain_and_version(kubectl: Kubectl) -> None:
    """Explain reads our schemas; version names the Kubernetes that is imitated."""
    assert "perDeviceNodeSelection" in await kubectl("explain", "resourceslice.spec")
    assert "Server Version: v1.37.1" in await kubectl("version")
