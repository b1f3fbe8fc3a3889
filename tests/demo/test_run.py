"""`dra sandbox run`: the main job from start to end, again and again, and interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.demo.conftest import REPOSITORY, Shell, soon

STAYS = """\
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: stays, finalizers: [example.com/nobody]}
spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu.dra-driver.dev}}]}}
"""
"""Is never gone once it was created, so that a demo does not end before it is interrupted."""


@pytest.mark.timeout(150)
def test_the_demo_tells_the_main_job_twice_in_a_row(shell: Shell) -> None:
    """Exit 0 in under a minute: published, allocated, prepared, seen inside, mapped, released; nothing is left."""
    before = sorted(shell.home.iterdir())
    for _ in range(2):
        began = time.monotonic()
        told = shell.output("dra", "sandbox", "run", "--dir", str(shell.sandbox))
        assert time.monotonic() - began < 60
        for line in (
            "published node-h100/nvidia: 216 devices in 9 slices",
            "published node-mi300x/amd: 16 devices in 8 slices",
            "allocated default/shared: gpu=gpu-0000-1b-00-0-mig-1g-20gb",
            "prepared  default/shared",
            "running   pod shared-a on node-h100",
            "running   pod shared-b on node-h100",
            "running   pod amd-gpu on node-mi300x",
            "pending   pod does-not-fit: 0/2 nodes are available",
            "cdi   gpu.dra-driver.dev/claim=",
            "env   DRA_DEVICE_0000_",
            "/dev/nvidia-caps/nvidia-cap",
            "/dev/kfd /dev/dri/renderD128",
            "[EEEEEEEE]",
            "nothing left: 0 pods, 0 claims, 0 CDI files, 0 journal records, 0 GPU instances",
        ):
            assert line in told
        assert shell.processes() == []
        assert sorted(shell.home.iterdir()) == before


@pytest.mark.parametrize(
    ("whole_group", "mark"),
    [
        (True, "no cluster"),
        (True, "published node-h100"),
        (True, "created   Pod/whole-gpu"),
        (True, "What the containers"),
        (True, "Deleting"),
        (False, "created   Pod/whole-gpu"),
    ],
)
def test_ctrl_c_leaves_nothing(shell: Shell, whole_group: bool, mark: str, tmp_path: Path) -> None:
    """At any moment: it ends soon, without a traceback, and leaves no process and no file.

    A terminal interrupts all processes of the group, `kill -INT` only the one.
    """
    demo = shutil.copytree(REPOSITORY / "demo/quickstart", tmp_path / "demo")
    (demo / "7-stays.yaml").write_text(STAYS)
    run = ("dra", "sandbox", "run", "--dir", str(shell.sandbox), "--demo", str(demo))
    process = shell.start(*run)
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stdout:
        if mark in line:
            break
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    said, failed = process.communicate(timeout=20)
    assert process.returncode in {1, 130}, said + failed
    assert "Traceback" not in failed
    assert soon(lambda: shell.processes() == [], within_s=5)
    assert not shell.sandbox.exists()


def test_somebody_elses_folder_is_left_alone(shell: Shell) -> None:
    """A folder with files that no sandbox made is refused, and keeps them."""
    folder = shell.home / "mine"
    folder.mkdir()
    (folder / "thesis").write_text("years of work")
    done = shell.run("dra", "sandbox", "run", "--dir", str(folder))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: folder {folder} holds files that are not a sandbox's")
    assert (folder / "thesis").read_text() == "years of work"
    (folder / "thesis").unlink()
    folder.rmdir()


def test_a_folder_without_manifests_is_refused(shell: Shell) -> None:
    """Before anything is started."""
    done = shell.run(
        "dra", "sandbox", "run", "--dir", str(shell.sandbox), "--demo", str(shell.home)
    )
    assert done.returncode == 1
    assert "holds no .yaml files; name one that does" in done.stderr
