"""`dra doctor`: each check on facts made for it, and the command against a real emulator."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner

import deviceclasses
from dra_driver.cli.doctor.command import examine
from dra_driver.cli.doctor.facts import PLUGIN_RIGHTS, Facts
from dra_driver.cli.main import main
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import JsonObject
from dra_driver.rules.publish import LIMITED_ANNOTATION

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def new_slice(*, node: str = "a", generation: int = 1, count: int = 1, **more: Any) -> JsonObject:
    pool = {"name": f"{node}/nvidia", "generation": generation, "resourceSliceCount": count}
    metadata = {"name": "s", "annotations": more.pop("annotations", {})}
    spec = {"driver": DRIVER_NAME, "nodeName": node, "pool": pool, **more}
    return {"metadata": metadata, "spec": spec}


def new_node(kubelet: str = "v1.37.1", runtime: str = "containerd://2.4.2", **allocatable: str) -> JsonObject:  # fmt: skip
    info = {"kubeletVersion": kubelet, "containerRuntimeVersion": runtime}
    return {"metadata": {"name": "a"}, "status": {"nodeInfo": info, "allocatable": allocatable}}


def new_claim(pool: str = "a/nvidia", **metadata: str) -> JsonObject:
    result = {"driver": DRIVER_NAME, "pool": pool, "device": "gpu"}
    allocation = {"devices": {"results": [result]}}
    return {
        "metadata": {"name": "c", "namespace": "ns", **metadata},
        "status": {"allocation": allocation},
    }


def new_daemon_set(ready: int) -> JsonObject:
    status = {"desiredNumberScheduled": 2, "numberReady": ready}
    return {"metadata": {"name": "d", "namespace": "ns"}, "status": status}


HEALTHY: dict[str, Any] = {
    "version": (1, 37, 1),
    "keeps_counters": True,
    "classes": deviceclasses.load_all(),
    "nodes": [new_node()],
    "slices": [new_slice()],
    "claims": [new_claim()],
    "daemon_sets": [new_daemon_set(2)],
    "refused": (),
}


def test_a_healthy_cluster_is_ok() -> None:
    """No warning, and a line for each thing that was looked at."""
    findings = list(examine(Facts(now=NOW, **HEALTHY)))
    assert {one.status for _, one in findings} == {"ok"}
    assert {"version", "gates", "classes", "rights", "daemonset", "slices", "nodes"} == {
        name for name, _ in findings
    }


@pytest.mark.parametrize(
    ("changed", "check", "status", "words"),
    [
        ({"version": (1, 33, 1)}, "version", "fail", "1.33.1 has no resource.k8s.io/v1"),
        ({"version": (1, 36, 1)}, "version", "warn", "#139034"),
        ({"keeps_counters": False}, "gates", "warn", "drops counters"),
        ({"classes": deviceclasses.load_all()[1:]}, "classes", "warn", "missing: amd-gpu"),
        (
            {"classes": [one | {"spec": {}} for one in deviceclasses.load_all()]},
            "classes",
            "warn",
            "not as this version ships them",
        ),
        ({"refused": PLUGIN_RIGHTS[:1]}, "rights", "fail", "may not get resourceslices"),
        ({"daemon_sets": [new_daemon_set(1)]}, "daemonset", "fail", "ns/d: 1 of 2 pods"),
        ({"slices": []}, "slices", "warn", "no node publishes"),
        ({"slices": [new_slice(count=2)]}, "slices", "fail", "pool a/nvidia has 1 of 2"),
        (
            {"slices": [new_slice(), new_slice(generation=2, count=2)]},
            "slices",
            "fail",
            "pool a/nvidia has 1 of 2",
        ),
        (
            {"slices": [new_slice(annotations={LIMITED_ANNOTATION: "no counters"})]},
            "modes",
            "warn",
            "node a publishes no partitions: no counters",
        ),
        (
            {"slices": [new_slice(annotations={"gpu.dra-driver.dev/drain": "now"})]},
            "drains",
            "warn",
            "node a is drained",
        ),
        ({"nodes": [new_node(kubelet="v1.33.0")]}, "nodes", "fail", "kubelet v1.33.0"),
        ({"nodes": [new_node(runtime="containerd://1.6.20")]}, "nodes", "fail", "knows no CDI"),
        ({"nodes": [new_node(runtime="containerd://1.7.1")]}, "nodes", "warn", "off by default"),
        ({"nodes": [new_node(**{"nvidia.com/gpu": "8"})]}, "rivals", "warn", "nvidia.com/gpu"),
        (
            {"nodes": [new_node() | {"metadata": {"name": "a", "labels": {"nvidia.com/mig.config.state": "success"}}}]},
            "rivals",
            "warn",
            "MIG manager",
        ),
        (
            {"slices": [new_slice(), new_slice() | {"spec": new_slice()["spec"] | {"driver": "gpu.nvidia.com"}}]},
            "rivals",
            "warn",
            "devices of gpu.nvidia.com",
        ),
        ({"claims": [new_claim("gone/nvidia")]}, "claims", "warn", "node gone, which is gone"),
        (
            {"claims": [new_claim(deletionTimestamp="2026-11-21T11:00:00Z")]},
            "claims",
            "warn",
            "claim ns/c has been going away",
        ),
        ({"unknown": {"nodes": "403 no"}}, "nodes", "warn", "403 no"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_fix(
    changed: dict[str, Any], check: str, status: str, words: str
) -> None:
    """One finding each, by the check that it belongs to."""
    findings = list(examine(Facts(now=NOW, **HEALTHY | changed)))
    [found] = [one for name, one in findings if name == check and words in one.message]
    assert found.status == status
    assert found.fix


def test_bad_news_fails_and_warnings_do_not() -> None:
    """What cannot be read because nobody answers is a warning for each fact, and nothing is claimed to be fine."""
    answer = CliRunner().invoke(main, ["doctor", "--server", "http://127.0.0.1:1", "-o", "json"])
    findings = json.loads(answer.stdout)["findings"]
    assert {one["status"] for one in findings if one["check"] == "version"} == {"warn"}
