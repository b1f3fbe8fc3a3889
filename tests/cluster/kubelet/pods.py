"""Pods on a real node: the demo's manifests made to run without a registry or a network, and what containers see."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dra_driver.kube.codec import slice_from_json
from dra_driver.model.errors import NotFound
from dra_driver.model.kinds import POD, RESOURCE_CLAIM, RESOURCE_SLICE, Kind
from dra_driver.ports import JsonObject, KubeApi
from dra_driver.sandbox.manifests import Manifest, read_manifests
from tests.cluster.kubelet.hardware import DeviceNodes
from tests.cluster.node import IMAGE, Node
from tests.cluster.waiting import eventually

QUICKSTART = Path(__file__).parents[3] / "demo" / "quickstart"

_RULE = "----"
_LOOK = f"env; echo {_RULE}; stat -c '%F|%n|%t|%T' /dev/* /dev/*/* 2>/dev/null; true"
_OF_EVERY_CONTAINER = {
    *(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "console")),
    "/dev/pts/ptmx",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a container sees of the world: its variables, and the device nodes that no container has by itself."""

    env: dict[str, str]
    nodes: DeviceNodes

    @property
    def devices(self) -> frozenset[str]:
        """The paths of the device nodes."""
        return frozenset(self.nodes)

    @property
    def uuids(self) -> list[str]:
        """The devices that the variables name."""
        return [text for name, text in self.env.items() if name.startswith("DRA_DEVICE_")]


async def is_published(api: KubeApi, expected: int = 2) -> bool:
    """Whether there are so many pools (of each vendor one), all of them complete."""
    slices = [slice_from_json(item) for item in (await api.list(RESOURCE_SLICE)).items]
    pools = {one.pool.name: one.pool for one in slices}
    counts = Counter(one.pool.name for one in slices)
    whole = (counts[name] == pool.slice_count for name, pool in pools.items())
    return len(pools) == expected and all(whole)


def quickstart(file: str) -> tuple[Manifest, ...]:
    """The objects of one file of the demo, as `runnable`."""
    found = [one for one in read_manifests(QUICKSTART) if one.file.startswith(file)]
    assert found, f"no file of {QUICKSTART} begins with {file}"
    return tuple(map(runnable, found))


def runnable(manifest: Manifest) -> Manifest:
    """The same; pods use the image that is there, the host's network, and die without a minute's notice."""
    if manifest.kind != POD:
        return manifest
    body = copy.deepcopy(manifest.body)
    body["spec"] |= {"hostNetwork": True, "terminationGracePeriodSeconds": 0}
    for container in body["spec"]["containers"]:
        container |= {"image": IMAGE, "imagePullPolicy": "Never"}
    return Manifest(file=manifest.file, kind=manifest.kind, body=body)


class Workload:
    """Objects in a namespace of their own, and the pods among them."""

    def __init__(self, api: KubeApi, namespace: str, node: Node) -> None:
        self._api = api
        self._namespace = namespace
        self._node = node

    async def apply(self, *manifests: Manifest) -> None:
        """Create the objects."""
        for manifest in manifests:
            await self._api.create(manifest.kind, manifest.body, namespace=self._namespace)

    async def pod(self, name: str) -> JsonObject:
        """The pod as the API has it."""
        return await self._api.get(POD, name, namespace=self._namespace)

    async def runs(self, name: str, *, within_s: float = 30) -> JsonObject:
        """The pod, once all its containers run."""

        async def running() -> bool:
            pod = await self.pod(name)
            statuses = pod["status"].get("containerStatuses", ())
            return bool(statuses) and all("running" in one["state"] for one in statuses)

        await eventually(running, within_s=within_s)
        return await self.pod(name)

    async def waits(self, name: str) -> None:
        """Returns once the scheduler has said that no node has what the pod asks for."""

        async def is_refused() -> bool:
            conditions = (await self.pod(name))["status"].get("conditions", ())
            return any(one.get("reason") == "Unschedulable" for one in conditions)

        await eventually(is_refused)

    async def delete(self, name: str, *, grace_period_s: int | None = None) -> None:
        """Ask for the pod's end."""
        await self._api.delete(POD, name, namespace=self._namespace, grace_period_s=grace_period_s)

    async def is_gone(self, name: str) -> bool:
        """Whether the API has the pod no more."""
        try:
            await self.pod(name)
        except NotFound:
            return True
        return False

    async def claims(self) -> list[JsonObject]:
        """All claims of the namespace."""
        return list((await self._api.list(RESOURCE_CLAIM, namespace=self._namespace)).items)

    async def delete_all(self) -> None:
        """Delete every pod, then every claim, and wait until they are gone."""
        for kind in (POD, RESOURCE_CLAIM):
            await self._delete_each(kind)
            await eventually(partial(self._has_no, kind))

    async def _delete_each(self, kind: Kind) -> None:
        for item in (await self._api.list(kind, namespace=self._namespace)).items:
            with suppress(NotFound):
                await self._api.delete(kind, item["metadata"]["name"], namespace=self._namespace)

    async def _has_no(self, kind: Kind) -> bool:
        return not (await self._api.list(kind, namespace=self._namespace)).items

    def view(self, pod: JsonObject, container: str) -> View:
        """What the container sees, asked inside of it."""
        statuses = {one["name"]: one["containerID"] for one in pod["status"]["containerStatuses"]}
        identity = statuses[container].removeprefix("containerd://")
        output = self._node.ctr("tasks", "exec", "--exec-id", "look", identity, "sh", "-c", _LOOK)
        env, _, table = output.partition(_RULE)
        return View(
            env=dict(line.split("=", 1) for line in env.splitlines() if "=" in line),
            nodes=dict(_device_nodes(table)),
        )


def _device_nodes(table: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Path and numbers of the character devices that `stat` lists, less those of every container."""
    for line in table.strip().splitlines():
        kind, path, major, minor = line.split("|")
        if kind == "character special file" and path not in _OF_EVERY_CONTAINER:
            yield path, (int(major, 16), int(minor, 16))
