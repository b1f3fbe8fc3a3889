from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import yaml
from click.testing import Result

CLAIMS = "/apis/resource.k8s.io/v1/resourceclaims"
SLICES = "/apis/resource.k8s.io/v1/resourceslices"


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


def test_devices_say_what_they_are_and_who_has_them(dra: Callable[..., Result]) -> None:
    """One row for each device, by node and name: allocated, blocked by it, tainted, or free."""
    assert lines(dra("get", "devices")) == [
        "NAME           NODE     TYPE        PROFILE   MEMORY   SHARING     STATE       CLAIM",
        "gpu-0          node-a   gpu         <none>    80Gi     exclusive   blocked     <none>",
        "gpu-0-half-0   node-a   partition   3g.40gb   40Gi     exclusive   allocated   default/train",
        "gpu-0-half-4   node-a   partition   3g.40gb   40Gi     exclusive   free        <none>",
        "gpu-1          node-a   gpu         <none>    80Gi     exclusive   tainted     <none>",
        "gpu-0          node-b   gpu         <none>    80Gi     exclusive   free        <none>",
        "gpu-0-half-0   node-b   partition   3g.40gb   40Gi     exclusive   free        <none>",
        "gpu-0-half-4   node-b   partition   3g.40gb   40Gi     exclusive   free        <none>",
        "gpu-1          node-b   gpu         <none>    80Gi     exclusive   free        <none>",
    ]


def test_only_our_slices_are_asked_for(dra: Callable[..., Result], cluster: Any) -> None:
    """The API server filters by driver, for devices and for slices."""
    for noun in ("devices", "slices"):
        lines(dra("get", noun))
        assert cluster.queries.pop(SLICES)["fieldSelector"] == ["spec.driver=gpu.dra-driver.dev"]


def test_a_device_can_be_named_on_all_nodes_or_on_one(dra: Callable[..., Result]) -> None:
    """A bare name finds it on each node, a name with its pool on one; what -o name prints finds it again."""
    assert len(lines(dra("get", "devices", "gpu-1", "--no-headers"))) == 2
    assert lines(dra("get", "device", "node-b/nvidia/gpu-1", "-o", "name")) == [
        "device.gpu.dra-driver.dev/node-b/nvidia/gpu-1"
    ]


def test_wide_devices_name_their_taints(dra: Callable[..., Result]) -> None:
    """Wide output has more columns, the last of them saying why a device is tainted."""
    header, row = lines(dra("get", "devices", "-o", "wide", "node-a/nvidia/gpu-1"))
    assert header.split()[-5:] == ["POOL", "PRODUCT", "UUID", "FOREIGN", "TAINTS"]
    assert row.endswith("gpu.dra-driver.dev/unhealthy:NoSchedule")


def test_devices_as_a_document(dra: Callable[..., Result]) -> None:
    """JSON is a DeviceList with plain values: state, claims, attributes, capacity, taints."""
    document = json.loads("\n".join(lines(dra("get", "devices", "-o", "json"))))
    assert (document["apiVersion"], document["kind"]) == (
        "gpu.dra-driver.dev/v1alpha1",
        "DeviceList",
    )
    half = document["items"][1]
    assert (half["kind"], half["name"], half["state"]) == ("Device", "gpu-0-half-0", "allocated")
    assert half["claims"] == [{"namespace": "default", "name": "train", "uid": "c1"}]
    assert half["attributes"]["driverVersion"] == "580.95.5"
    assert half["capacity"] == {"memory": "40Gi"}


def test_an_odd_object_hides_no_other(dra: Callable[..., Result], cluster: Any) -> None:
    """A slice that cannot be understood is left out with a warning."""
    cluster.answers[SLICES].append({"metadata": {"name": "odd"}, "spec": {"driver": 7}})
    result = dra("get", "devices", "--no-headers")
    assert len(lines(result)) == 8
    assert result.stderr.startswith("warning: left out: ")


def test_claims_show_their_devices(dra: Callable[..., Result]) -> None:
    """State in kubectl's words, devices, age; the namespace only with -A."""
    assert lines(dra("get", "claims")) == [
        "NAME    STATE                DEVICES        AGE",
        "train   allocated,reserved   gpu-0-half-0   5h30m",
    ]
    assert lines(dra("get", "claims", "-A", "-o", "wide")) == [
        "NAMESPACE   NAME    STATE                DEVICES        AGE     POOLS           CLASSES              RESERVED-FOR",
        "default     train   allocated,reserved   gpu-0-half-0   5h30m   node-a/nvidia   gpu.dra-driver.dev   pods/trainer",
    ]


def test_a_claim_that_waits_or_goes_says_so(dra: Callable[..., Result], cluster: Any) -> None:
    """Neither a status nor an allocation is needed; deletion shows first; rows are sorted."""
    allocated = cluster.answers[CLAIMS][0]
    leaving = deepcopy(allocated)
    leaving["metadata"] |= {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    leaving["status"].pop("reservedFor")
    waiting = {"metadata": {"namespace": "other", "name": "b"}, "spec": {}}
    cluster.answers[CLAIMS] = [waiting, allocated, leaving]
    rows = [line.split() for line in lines(dra("get", "claims", "-A", "--no-headers"))]
    assert [row[:3] for row in rows] == [
        ["default", "a", "deleted,allocated"],
        ["default", "train", "allocated,reserved"],
        ["other", "b", "pending"],
    ]
    assert rows[2][3:] == ["<none>", "<unknown>"]


def test_one_named_claim_is_the_object_itself(dra: Callable[..., Result], cluster: Any) -> None:
    """-o yaml of one name is what the API server stores; without a name it is a List of that."""
    single = yaml.safe_load("\n".join(lines(dra("get", "claim", "train", "-o", "yaml"))))
    assert single == cluster.answers[CLAIMS][0]
    several = yaml.safe_load("\n".join(lines(dra("get", "claims", "-o", "yaml"))))
    assert several == {"apiVersion": "v1", "kind": "List", "items": [single]}


def test_labels_are_left_to_the_server(dra: Callable[..., Result], cluster: Any) -> None:
    """-l becomes a labelSelector."""
    lines(dra("get", "claims", "-A", "-l", "team=a,tier!=test"))
    assert cluster.queries[CLAIMS]["labelSelector"] == ["team=a,tier!=test"]


def test_slices_show_what_is_in_them(dra: Callable[..., Result]) -> None:
    """Devices and counter sets are counted."""
    assert lines(dra("get", "slices", "-o", "wide"))[:3] == [
        "NAME       NODE     POOL            DEVICES   COUNTER-SETS   AGE         GENERATION   POOL-SLICES",
        "0-node-a   node-a   node-a/nvidia   0         2              <unknown>   1            2",
        "0-node-b   node-b   node-b/nvidia   0         2              <unknown>   1            2",
    ]


def test_nodes_count_their_gpus(dra: Callable[..., Result]) -> None:
    """A GPU is in use as soon as a part of it is."""
    assert lines(dra("get", "nodes")) == [
        "NAME     STATUS     GPUS   IN-USE   AGE",
        "node-a   Ready      2      1        3d4h",
        "node-b   NotReady   2      0        3d4h",
    ]
    assert lines(dra("get", "nodes", "-o", "name")) == ["node/node-a", "node/node-b"]


@pytest.mark.parametrize("noun", ["devices", "claims", "slices", "nodes"])
def test_nothing_found_is_no_failure(dra: Callable[..., Result], cluster: Any, noun: str) -> None:
    """Standard output stays empty, stderr says so, the exit code is 0; JSON is an empty list instead."""
    cluster.answers = {path: [] for path in cluster.answers}
    result = dra("get", noun)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No resources found.\n")
    assert json.loads(dra("get", noun, "-o", "json").stdout)["items"] == []


@pytest.mark.parametrize("noun", ["device", "claim", "slice", "node"])
def test_an_unknown_name_fails(dra: Callable[..., Result], noun: str) -> None:
    """The error names it and says what to do; the exit code is 1."""
    result = dra("get", noun, "nowhere")
    assert (result.exit_code, result.stdout) == (1, "")
    error, advice = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert "nowhere" in error
    assert advice.startswith("leave out the name")


def test_what_was_found_is_shown_beside_what_was_not(dra: Callable[..., Result]) -> None:
    """A wrong name among right ones costs only itself, and the exit code."""
    result = dra("get", "claims", "train", "nowhere", "-o", "name")
    assert (result.exit_code, result.stdout) == (1, "resourceclaim.resource.k8s.io/train\n")
    assert "nowhere" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("claims", "-A", "train"),
        ("claims", "-l", "a=b", "train"),
        ("pods",),
        ("nodes", "-o", "xml"),
    ],
)
def test_wrong_usage_has_its_own_exit_code(
    dra: Callable[..., Result], arguments: tuple[str, ...]
) -> None:
    """Contradicting options, unknown nouns and formats exit with 2 before anything is asked."""
    result = dra("get", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
