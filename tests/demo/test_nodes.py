"""Sandboxes with other nodes than the usual ones, and what a sandbox that was killed leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

from dra_driver.sandbox.folder import read_running
from tests.demo.conftest import REPOSITORY, Shell, soon

FIRST_AVAILABLE = REPOSITORY / "demo/quickstart/4-first-available.yaml"
ILLEGAL = """\
apiVersion: gpu.dra-driver.dev/v1alpha1
kind: Machine
name: illegal
gpus:
- {vendor: nvidia, model: H100-SXM5-80GB, mode: mig, instances: [{profile: 3g.40gb, start: 2}]}
"""


def test_without_instances_the_second_alternative_is_taken(shell: Shell) -> None:
    """A node with nothing but MI300X: a whole one, in place of an instance; and no file is written but in the folder."""
    demo, scratch = shell.home / "demo", shell.home / "tmp"
    demo.mkdir()
    scratch.mkdir()
    shutil.copy(FIRST_AVAILABLE, demo)
    before = sorted(shell.home.rglob("*"))
    told = subprocess.run(
        ("dra", "sandbox", "run", "--demo", demo, "--node", "n=8xmi300x"),
        cwd=shell.home,
        env=shell.environment() | {"TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "gpu/whole=gpu-0000-05-00-0" in told
    assert "running   pod first-available on n" in told
    assert sorted(shell.home.rglob("*")) == before
    shutil.rmtree(demo)
    scratch.rmdir()


def test_a_killed_sandbox_takes_its_processes_along(shell: Shell) -> None:
    """After SIGKILL no process stays, and the folder that does is taken over by the next one."""
    up = ("dra", "sandbox", "up", "--dir", str(shell.sandbox), "--node")
    shell.output(*up, "first=8xmi300x")
    running = read_running(shell.sandbox)
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    assert soon(lambda: shell.processes() == [], within_s=5)
    assert (shell.sandbox / "first").exists()
    shell.output(*up, "second=8xmi300x")
    assert not (shell.sandbox / "first").exists()
    assert "second   Ready" in shell.output("dra", "get", "nodes")
    shell.output("dra", "sandbox", "down", "--dir", str(shell.sandbox))
    assert shell.processes() == []
    assert not shell.sandbox.exists()


def test_ctrl_c_while_it_comes_up_takes_it_down_again(shell: Shell) -> None:
    """`up` starts it in the background; whoever interrupts that finds nothing running there."""
    settings = shell.home / "settings"
    os.mkfifo(settings)  # the plugin reads it, so nothing is up before it was written
    up = ("dra", "sandbox", "up", "--dir", str(shell.sandbox), "--node", "n=8xmi300x")
    process = shell.start("env", f"DRA_CONFIG={settings}", *up)
    assert soon((shell.sandbox / "sandbox.json").exists)
    os.killpg(process.pid, signal.SIGINT)
    settings.write_text("coexistence: refuse\n")  # read for certain: `up` ends what has come up
    _, failed = process.communicate(timeout=20)
    settings.unlink()
    assert process.returncode in {1, 130}
    assert "Traceback" not in failed
    assert soon(lambda: shell.processes() == [], within_s=5)
    assert not shell.sandbox.exists()


def test_an_illegal_layout_is_refused(shell: Shell) -> None:
    """Machine, GPU, instance and the placements that would do, in one line, also from the background; nothing is left."""
    machine = shell.home / "illegal.yaml"
    machine.write_text(ILLEGAL)
    done = shell.run("dra", "sandbox", "up", "--dir", str(shell.sandbox), "--node", f"n={machine}")
    assert done.returncode == 1
    assert (
        "machine illegal: GPU 0000:1b:00.0: profile 3g.40gb cannot stand at 2 beside the instances before it; "
        "possible starts: 0, 4\n"
    ) in done.stderr
    assert shell.processes() == []
    assert not shell.sandbox.exists()
    machine.unlink()
