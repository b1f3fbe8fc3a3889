"""`dra doctor` on a real control plane."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from dra_driver.kube.rest import RestApi
from tests.cluster.controlplane import ControlPlane
from tests.cluster.release import installed, node_object


async def test_a_release_is_examined(control_plane: ControlPlane, api: RestApi) -> None:
    """Rights, classes and gates are found as they are; no node publishes, and one pod cannot run: both are said."""
    async with node_object(api, "node-a"), installed(control_plane, api):
        findings = examine(control_plane)
    statuses = {one["check"]: one["status"] for one in findings if one["check"] != "version"}
    partitions = control_plane.version >= (1, 36)
    assert statuses["rights"] == "ok"
    assert statuses["classes"] == "ok"
    assert statuses["gates"] == ("ok" if partitions else "warn")
    assert statuses["slices"] == "warn"


def examine(plane: ControlPlane) -> list[dict[str, Any]]:
    """What the command says."""
    program = Path(sys.executable).with_name("dra")
    command: list[str | Path] = [program, "doctor", "--kubeconfig", plane.kubeconfig, "-o", "json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    findings: list[dict[str, Any]] = json.loads(answer.stdout)["findings"]
    return findings
