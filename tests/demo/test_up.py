"""A sandbox in the background, with kubectl: lists, applies, describes, watches and deletes the demo's objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.demo.conftest import REPOSITORY, Shell, soon

DEMO = REPOSITORY / "demo/quickstart"


@pytest.fixture(scope="module")
def up(shell: Shell) -> Iterator[Shell]:
    """A sandbox with two H100 GPUs on one node and MI300X on the other, and the quickstart applied."""
    told = shell.output("dra", "sandbox", "up", "--dir", str(shell.sandbox))
    assert f"export KUBECONFIG={shell.sandbox}/kubeconfig" in told
    shell.output("kubectl", "apply", "-f", str(DEMO))
    assert soon(lambda: phases(shell).count("Running") == 6), shell.output("kubectl", "get", "pods")
    yield shell
    shell.output("dra", "sandbox", "down", "--dir", str(shell.sandbox))
    assert shell.processes() == []
    assert not shell.sandbox.exists()


def items(shell: Shell, *what: str) -> list[dict[str, Any]]:
    """Objects, as kubectl gets them."""
    listed: list[dict[str, Any]] = json.loads(shell.output("kubectl", "get", *what, "-o", "json"))[
        "items"
    ]
    return listed


def phases(shell: Shell) -> list[str]:
    """Of all pods."""
    return [pod["status"].get("phase", "") for pod in items(shell, "pods")]


def view(shell: Shell, node: str, pod: str) -> dict[str, Any]:
    """What the pod's containers see, by name."""
    content = json.loads((shell.sandbox / node / "pods" / f"default_{pod}.json").read_text())
    return {container["name"]: container for container in content["containers"]}


def given(shell: Shell, pod: str) -> list[dict[str, Any]]:
    """The devices of the pod's claims, from its name."""
    claims = [
        c
        for c in items(shell, "resourceclaims")
        if any(r["name"] == pod for r in c.get("status", {}).get("reservedFor", []))
    ]
    return [
        result for claim in claims for result in claim["status"]["allocation"]["devices"]["results"]
    ]


def test_kubectl_lists_what_there_is(up: Shell) -> None:
    """Columns as of a real server, for every kind of the demo."""
    assert "NAME" in up.output("kubectl", "get", "pods,resourceclaims,resourceclaimtemplates")
    assert "gpu.dra-driver.dev" in up.output("kubectl", "get", "resourceslices")
    assert "nvidia-mig.dra-driver.dev" in up.output("kubectl", "get", "deviceclasses")
    assert "node-h100" in up.output("kubectl", "get", "nodes")


def test_kubectl_applies_again_without_harm(up: Shell) -> None:
    """Nothing is made anew, and everything goes on running."""
    before = {pod["metadata"]["uid"] for pod in items(up, "pods")}
    up.output("kubectl", "apply", "-f", str(DEMO))
    assert {pod["metadata"]["uid"] for pod in items(up, "pods")} == before
    assert phases(up).count("Running") == 6


def test_a_whole_gpu_is_chosen_by_what_it_is(up: Shell) -> None:
    """Hopper with 60 GiB: a whole H100."""
    (result,) = given(up, "whole-gpu")
    assert result["pool"] == "node-h100/nvidia"
    assert "mig" not in result["device"]


def test_each_container_sees_its_own_instance_only(up: Shell) -> None:
    """Two instances of different size on one GPU; environment and capability nodes do not overlap."""
    small, large = given(up, "two-instances")
    assert small["device"].partition("-mig-")[0] == large["device"].partition("-mig-")[0]
    assert "1g-10gb" in small["device"]
    assert "3g-40gb" in large["device"]
    containers = view(up, "node-h100", "two-instances")
    embed, generate = containers["embed"], containers["generate"]
    own = [
        {n["path"] for n in c["deviceNodes"] if "nvidia-cap" in n["path"]}
        for c in (embed, generate)
    ]
    assert len(own[0]) == len(own[1]) == 2
    assert not own[0] & own[1]
    variables = [
        {name for name in c["env"] if name.startswith("DRA_DEVICE")} for c in (embed, generate)
    ]
    assert len(variables[0]) == len(variables[1]) == 1
    assert not variables[0] & variables[1]


def test_pods_that_share_a_claim_see_the_same_device(up: Shell) -> None:
    """One CDI id in both."""
    views = [view(up, "node-h100", pod)["notebook"] for pod in ("shared-a", "shared-b")]
    assert views[0]["cdiDevices"] == views[1]["cdiDevices"]
    assert len(views[0]["cdiDevices"]) == 1


def test_the_first_alternative_that_fits_is_taken(up: Shell) -> None:
    """There is room for an instance, so it is no whole GPU."""
    (result,) = given(up, "first-available")
    assert result["request"] == "gpu/instance"


def test_a_pod_that_cannot_fit_says_why(up: Shell) -> None:
    """In its condition and in an Event, as `kubectl describe` shows them."""
    why = "no device of class gpu.dra-driver.dev matches its selectors"
    describe = ("kubectl", "describe", "pod", "does-not-fit")
    assert soon(lambda: why in up.output(*describe))
    described = up.output(*describe)
    assert "FailedScheduling" in described
    assert "Pending" in described


def test_wrong_parameters_stop_one_pod_only(up: Shell, tmp_path: Path) -> None:
    """Its Event names claim, field and fix; the others go on."""
    text = (DEMO / "4-first-available.yaml").read_text()
    parameters = "{apiVersion: gpu.dra-driver.dev/v1alpha1, kind: GpuConfig, sharin: {}}"
    config = f"      config:\n      - opaque: {{driver: gpu.dra-driver.dev, parameters: {parameters}}}\n---\n"
    manifest = tmp_path / "wrong.yaml"
    wrong = (
        text.replace("---\n", config, 1)
        .replace("first-available", "wrong")
        .replace("instance-or-gpu", "wrong")
    )
    manifest.write_text(wrong)
    up.output("kubectl", "apply", "-f", str(manifest))
    assert soon(
        lambda: "FailedPrepareDynamicResources" in up.output("kubectl", "describe", "pod", "wrong")
    )
    described = up.output("kubectl", "describe", "pod", "wrong")
    assert "InvalidParameters: claim default/wrong-gpu" in described
    assert "sharin" in described
    assert phases(up).count("Running") == 6
    up.output("kubectl", "delete", "-f", str(manifest))


def test_two_watches_from_one_list_see_the_same(up: Shell) -> None:
    """Every change after the list, in the same order, whether the watch was there already or came later."""
    server = json.loads((up.sandbox / "kubeconfig").read_text())["clusters"][0]["cluster"]["server"]
    url = f"{server}/apis/resource.k8s.io/v1/resourceclaimtemplates"
    with urlopen(url, timeout=10) as answer:
        version = json.load(answer)["metadata"]["resourceVersion"]
    watch = f"{url}?watch=true&resourceVersion={version}"
    with urlopen(watch, timeout=10) as early:
        name = "resourceclaimtemplate.resource.k8s.io/amd-gpu"
        for number in range(4):
            up.output("kubectl", "annotate", "--overwrite", name, f"change={number}")
        with urlopen(watch, timeout=10) as late:
            seen = [[json.loads(events.readline()) for _ in range(4)] for events in (early, late)]
    assert seen[0] == seen[1]
    changes = [event["object"]["metadata"]["annotations"]["change"] for event in seen[0]]
    assert changes == ["0", "1", "2", "3"]


def test_dra_get_shows_the_same_picture(up: Shell) -> None:
    """Devices that claims hold, claims with their devices, nodes with GPUs in use."""
    devices = up.output("dra", "get", "devices")
    assert "allocated" in devices
    assert "blocked" in devices
    assert "default/shared" in devices
    assert "gpu-0000-05-00-0" in up.output("dra", "get", "claims")
    assert "node-mi300x   Ready    8      1" in up.output("dra", "get", "nodes")


def test_a_second_one_in_the_folder_is_refused(up: Shell) -> None:
    """It says where the first one is and how to end it."""
    done = up.run("dra", "sandbox", "up", "--dir", str(up.sandbox))
    assert done.returncode == 1
    assert "runs in" in done.stderr
    assert "dra sandbox down" in done.stderr


def test_deleting_gives_everything_back(up: Shell) -> None:
    """Kubectl waits until the pods are gone; then no CDI file is left, and applying works again."""
    up.output("kubectl", "delete", "-f", str(DEMO))
    assert items(up, "pods") == []
    assert soon(lambda: items(up, "resourceclaims") == [])
    assert soon(lambda: not any((up.sandbox / "node-h100" / "cdi").iterdir()))
    up.output("kubectl", "apply", "-f", str(DEMO))
    assert soon(lambda: phases(up).count("Running") == 6)


def test_down_without_a_sandbox_is_fine(shell: Shell, tmp_path: Path) -> None:
    """There is nothing to end, and it says so."""
    done = shell.run("dra", "sandbox", "down", "--dir", str(tmp_path / "none"))
    assert done.returncode == 0
    assert "No sandbox runs in" in done.stderr
