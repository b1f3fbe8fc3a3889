"""The quickstart's pods on nodes with 8 x H100 and 8 x MI300X: the real scheduler allocates what our allocator does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import deviceclasses
from dra_driver.config.machine import load_machine
from dra_driver.kube.codec import slice_to_json
from dra_driver.model.inventory import Inventory
from dra_driver.model.kinds import NODE, RESOURCE_CLAIM
from dra_driver.ports import JsonObject
from dra_driver.rules.allocate import Matcher
from dra_driver.rules.pool_diff import diff_pool
from dra_driver.rules.publish import PublishMode, desired_pool
from dra_driver.vendors.amd.backend import AmdBackend
from dra_driver.vendors.amd.sdk import Sysfs
from dra_driver.vendors.amd.simulated import build_tree
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from tests.cluster.controlplane import ControlPlane
from tests.cluster.differential.case import CASE_LABEL, Case
from tests.cluster.differential.trial import Reply, Trial
from tests.cluster.differential.verdict import NOWHERE, Answer, expected

MANIFESTS = sorted((Path(__file__).parents[3] / "demo" / "quickstart").glob("*.yaml"))


@pytest.fixture(scope="module")
def inventories(tmp_path_factory: pytest.TempPathFactory) -> list[Inventory]:
    """What simulated hardware reports on the two nodes."""
    nvidia, amd = (load_machine(name) for name in ("8xh100-80", "8xmi300x"))
    folder = tmp_path_factory.mktemp("hardware")
    tree = build_tree(amd, node="n", folder=folder)
    nvml = SimulatedNvml(nvidia, node="n", state_dir=folder)
    return [discover(NvidiaBackend(nvml)), discover(AmdBackend(Sysfs(tree)))]


def case_of(manifest: Path, inventories: list[Inventory], mode: PublishMode) -> Case:
    """The manifest's first pod, with nodes, classes and claims under names that no other case has."""
    name = f"quickstart-{manifest.name.partition('-')[0]}"
    objects = list(yaml.safe_load_all(manifest.read_text()))
    slices: list[JsonObject] = []
    nodes: list[JsonObject] = []
    for index, inventory in enumerate(inventories):
        node = f"{name}-{index}"
        pool = desired_pool(node, inventory, frozenset(), mode, 64)
        slices += [slice_to_json(published) for published in diff_pool(pool, []).writes]
        nodes.append(
            {
                "apiVersion": "v1",
                "kind": NODE.kind,
                "metadata": {"name": node, "labels": {CASE_LABEL: name}},
                "status": {"allocatable": {"pods": "110"}},
            }
        )
    classes = [
        one | {"metadata": {"name": f"{name}-{one['metadata']['name']}"}}
        for one in deviceclasses.load_all()
    ]
    claims = tuple(_claims(name, objects))
    return Case(
        name=name,
        nodes=tuple(nodes),
        classes=tuple(classes),
        slices=tuple(slices),
        held=(),
        claims=claims,
    )


def _claims(case: str, objects: list[JsonObject]) -> Iterator[JsonObject]:
    named = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    pod = next(one for one in objects if one["kind"] == "Pod")
    for number, entry in enumerate(pod["spec"]["resourceClaims"]):
        if template := entry.get("resourceClaimTemplateName"):
            spec = named["ResourceClaimTemplate", template]["spec"]["spec"]
        else:
            spec = named["ResourceClaim", entry["resourceClaimName"]]["spec"]
        for request in spec["devices"]["requests"]:
            for choice in request.get("firstAvailable") or [request["exactly"]]:
                choice["deviceClassName"] = f"{case}-{choice['deviceClassName']}"
        yield {
            "apiVersion": RESOURCE_CLAIM.api_version,
            "kind": RESOURCE_CLAIM.kind,
            "metadata": {"name": f"{case}-{number}"},
            "spec": spec,
        }


async def test_the_quickstart_is_allocated_alike(
    control_plane: ControlPlane, trial: Trial, matcher: Matcher, inventories: list[Inventory]
) -> None:
    """Device by device; with 1.34, which has no counters and tries slices in no certain order, on the same node or nowhere."""
    modern = control_plane.version >= (1, 36, 0)
    mode = PublishMode.FULL if modern else PublishMode.PLAIN
    cases = [case_of(manifest, inventories, mode) for manifest in MANIFESTS]
    ours = {case.name: expected(case, matcher) for case in cases}

    def seen(answer: Answer) -> Answer | str | None:
        return answer if modern else answer.node

    def agrees(case: Case, reply: Reply) -> bool:
        return seen(reply.answer) in map(seen, ours[case.name])

    replies = await trial.put(cases, agrees)
    if modern:
        assert [case.name for case in cases if ours[case.name] == (NOWHERE,)] == ["quickstart-6"]
    for case in cases:
        reply = replies[case.name]
        assert agrees(case, reply), f"{case.claims}: {reply.answer} {reply.message}"
