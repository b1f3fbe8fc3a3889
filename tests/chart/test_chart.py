"""What the chart installs, without a cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_python import HelmValuesError

import deviceclasses
from dra_driver.config.settings import PluginSettings
from dra_driver.model.names import DRIVER_NAME
from kubelet_plugin.app import HANG_UP_S
from kubelet_plugin.duties import WITHDRAW_S
from tests.chart.generate import CHART, generated
from tests.chart.rendering import PLUGIN, find, render, render_hooks

EVERYTHING: dict[str, Any] = {
    "image": {"tag": "1", "repository": "r", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "s"}],
    "settings": {"machine": "8xh100-80", "logLevel": "debug", "devicesPerGpu": 32},
    "nodeSelector": {"gpu": "yes"},
    "affinity": {"nodeAffinity": {}},
    "podLabels": {"team": "a"},
    "podAnnotations": {"note": "b"},
    "metrics": {"port": 9400, "scrapeAnnotations": True},
}
GRANTED = {
    ("resource.k8s.io", "resourceslices"): "create delete get list patch update watch",
    ("resource.k8s.io", "resourceclaims"): "get list",
    ("resource.k8s.io", "resourceclaims/status"): "patch",
    ("resource.k8s.io", "resourceclaims/driver"): "associated-node:patch associated-node:update",
    ("", "events"): "create patch",
    ("", "nodes"): "get",
}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
@pytest.mark.parametrize("version", ["1.34", "1.37"])
def test_every_object_is_valid(values: dict[str, Any], version: str) -> None:
    """Strictly: no field that Kubernetes does not know, on the oldest and on the newest version."""
    for document in [*render(values), *render_hooks(values)]:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_plugin_may_do_this_and_nothing_else() -> None:
    """Every right is spelled out here; a new one has to be wanted twice."""
    rules = find(render(), "ClusterRole")["rules"]
    found = {
        (group, resource): " ".join(sorted(rule["verbs"]))
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert found == GRANTED
    named = [rule["resourceNames"] for rule in rules if "resourceNames" in rule]
    assert named == [[DRIVER_NAME]]


def test_removal_waits_for_a_drain_with_the_rights_of_one() -> None:
    """The hook's rights are those that `dra drain` needs, and the hook can be left out."""
    hooks = render_hooks({"drain": {"timeout": "1h"}})
    assert [one["kind"] for one in hooks][-1] == "Job"
    rules = find(hooks, "ClusterRole")["rules"]
    assert [(rule["resources"], rule["verbs"]) for rule in rules] == [
        (["resourceslices"], ["list", "patch"]),
        (["resourceclaims"], ["list"]),
    ]
    [container] = find(hooks, "Job")["spec"]["template"]["spec"]["containers"]
    command = " ".join([*container["command"], *container["args"]])
    assert command == "dra drain --all --for-removal --timeout=1h"
    assert not render_hooks({"drain": {"onUninstall": False}})


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"setings": {}}, "setings"),
        ({"image": {"repo": "x"}}, "/image"),
        ({"settings": {"logLevl": "debug"}}, "/settings"),
        ({"settings": {"nodeName": "n"}}, "/settings"),
        ({"settings": {"devicesPerGpu": "64"}}, "/settings/devicesPerGpu"),
        ({"admissionPolicy": {"creat": True}}, "/admissionPolicy"),
        ({"cdiDir": "var/run/cdi"}, "/cdiDir"),
        ({"drain": {"timeout": "soon"}}, "/drain/timeout"),
        ({"metrics": {"port": 0}}, "/metrics/port"),
        ({"settings": {"metricsAddress": "off"}}, "/settings"),
    ],
)
def test_values_that_mean_nothing_are_refused(values: dict[str, Any], place: str) -> None:
    """A mistyped key or value fails the installation, and the message says where it is."""
    with pytest.raises(HelmValuesError, match=place):
        render(values)


def test_parts_can_be_left_out() -> None:
    """Classes and policy may be somebody else's business."""
    off = {"deviceClasses": {"create": False}, "admissionPolicy": {"create": False}}
    kinds = {one["kind"] for one in render(off)}
    assert kinds == {
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "DaemonSet",
    }


def test_the_classes_are_those_that_we_ship() -> None:
    """Nothing more, nothing less, nothing else."""
    rendered = [one for one in render() if one["kind"] == "DeviceClass"]
    key = "metadata"
    assert sorted(rendered, key=lambda one: str(one[key])) == sorted(
        deviceclasses.load_all(), key=lambda one: str(one[key])
    )


def test_generated_files_are_current() -> None:
    """`make generate` would change nothing."""
    files = generated()
    assert {path: path.read_text() for path in files} == files
    assert set((CHART / "deviceclasses").iterdir()) <= set(files)


def test_the_plugin_understands_its_arguments(tmp_path: Path) -> None:
    """Arguments, variables and settings file of the DaemonSet are accepted by the real program."""
    objects = render(EVERYTHING)
    [container] = find(objects, "DaemonSet")["spec"]["template"]["spec"]["containers"]
    settings = tmp_path / "settings.yaml"
    settings.write_text(find(objects, "ConfigMap")["data"]["settings.yaml"])
    arguments = [
        text.replace("/etc/dra-driver/settings.yaml", str(settings)) for text in container["args"]
    ]
    assert arguments[0] == "run"
    environ = {one["name"]: "node-a" for one in container["env"]}
    program = [sys.executable, "-m", "kubelet_plugin", "config", "view"]
    answer = subprocess.run(
        [*program, *arguments[1:]], env=environ, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    shown = yaml.safe_load(answer.stdout)
    assert shown["nodeName"] == "node-a"
    assert shown["machine"] == "8xh100-80"
    assert shown["hostRoot"] == "/host"


def test_paths_are_the_same_inside_and_outside() -> None:
    """The kubelet and the runtime are told our paths, so they must mean the same to all."""
    spec = find(render({"kubeletDir": "/data/kubelet"}), "DaemonSet")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    outside = {one["name"]: one["hostPath"]["path"] for one in spec["volumes"] if "hostPath" in one}
    inside = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    for name in ("data", "registry", "cdi", "dev"):
        assert outside[name] == inside[name]
    assert outside["data"] == f"/data/kubelet/plugins/{DRIVER_NAME}"


def test_the_plugin_sees_who_uses_gpus() -> None:
    """In a PID namespace of its own it would hear of no process, and could name no container."""
    spec = find(render(), "DaemonSet")["spec"]["template"]["spec"]
    assert spec["hostPID"] is True


def test_new_settings_mean_new_pods() -> None:
    """The pod template says which settings it was made for."""
    templates = [
        find(render({"settings": settings}), "DaemonSet")["spec"]["template"]
        for settings in ({}, {"logLevel": "debug"})
    ]
    assert templates[0] != templates[1]


@pytest.mark.parametrize(("given", "granted"), [({}, 30), ({"stopTimeoutS": 90.5}, 101)])
def test_kubernetes_waits_longer_than_calls_under_way_may_take(
    given: dict[str, Any], granted: int
) -> None:
    """A plugin that is killed before has not told the kubelet that it is over."""
    pod = find(render({"settings": given}), "DaemonSet")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == granted
    given_s = PluginSettings.model_validate({"nodeName": "n", **given}).stop_timeout_s
    assert granted >= given_s + WITHDRAW_S + HANG_UP_S + 1


def test_an_upgrade_leaves_no_node_without_a_plugin() -> None:
    """The new pod comes first, and each has sockets of its own, named by its UID."""
    spec = find(render(), "DaemonSet")["spec"]
    assert spec["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    [container] = spec["template"]["spec"]["containers"]
    fields = {one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"] for one in container["env"]}
    assert fields["DRA_POD_UID"] == "metadata.uid"


def test_probes_ask_where_the_plugin_listens() -> None:
    """One port for all, at the pod's own IP and nowhere else; liveness asks for nothing that a restart would not mend."""
    template = find(render({"metrics": {"port": 9400}}), "DaemonSet")["spec"]["template"]
    [container] = template["spec"]["containers"]
    assert "--metrics-address=$(POD_IP):9400" in container["args"]
    sources = {one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"] for one in container["env"]}
    assert sources["POD_IP"] == "status.podIP"
    assert container["ports"] == [{"name": "metrics", "containerPort": 9400}]
    asked = {
        name: container[name]["httpGet"]
        for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert asked == {
        "startupProbe": {"path": "/healthz", "port": "metrics"},
        "livenessProbe": {"path": "/healthz", "port": "metrics"},
        "readinessProbe": {"path": "/readyz", "port": "metrics"},
    }


def test_scrapers_find_the_pods_if_they_shall() -> None:
    """Off by default: annotations are a convention, and some clusters have an operator instead."""
    values = {"metrics": {"port": 9400, "scrapeAnnotations": True}}
    off, on = (
        find(render(one), "DaemonSet")["spec"]["template"]["metadata"]["annotations"]
        for one in ({}, values)
    )
    assert {key: text for key, text in on.items() if key not in off} == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9400",
        "prometheus.io/path": "/metrics",
    }


def test_names_follow_the_release() -> None:
    """Two releases do not fight over cluster-wide objects."""
    for kind in ("ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "DaemonSet"):
        assert find(render(), kind)["metadata"]["name"] == PLUGIN
