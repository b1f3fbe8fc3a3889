"""The kind cluster's files, as far as they can be checked without Docker."""

from __future__ import annotations

import re
import subprocess

import yaml

from tests.chart.generate import ROOT
from tests.chart.rendering import find, render

KIND = ROOT / "tests" / "kind"


def test_the_script_is_valid() -> None:
    """Bash can read it."""
    subprocess.run(["bash", "-n", KIND / "run.sh"], check=True)


def test_the_chart_takes_its_values() -> None:
    """They pass the schema, and the plugin lands on the worker that the cluster's file labels."""
    values = yaml.safe_load((KIND / "values.yaml").read_text())
    cluster = yaml.safe_load((KIND / "cluster.yaml").read_text())
    selector = find(render(values), "DaemonSet")["spec"]["template"]["spec"]["nodeSelector"]
    assert selector in [node.get("labels") for node in cluster["nodes"]]


def test_the_image_has_what_the_program_needs() -> None:
    """Each file that the Dockerfile copies is there, and is not kept from the build."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copies = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    names = [name for line in copies for name in line.split()]
    assert names
    for name in names:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored


def test_the_manifests_are_those_of_the_node_suite() -> None:
    """What runs in kind runs in `make test-node` as well."""
    script = (KIND / "run.sh").read_text()
    assert "demo/quickstart/[1-4]-*.yaml" in script
    suite = (ROOT / "tests" / "cluster" / "kubelet" / "test_pods.py").read_text()
    for number in range(1, 5):
        assert f'quickstart("{number}-")' in suite
