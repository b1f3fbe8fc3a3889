"""nvidia-ctk as a program that may be slow, fail, or print what nobody expected."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from dra_driver.model.edits import Hook, Mount
from dra_driver.model.errors import VendorError
from dra_driver.vendors.nvidia.driver_root import DriverRoot
from dra_driver.vendors.nvidia.toolkit import Toolkit, find_toolkit
from dra_driver.vendors.nvidia.toolkit_spec import ToolkitSpec
from tests.vendors.nvidia.driver_tree import HOOK_PROGRAM, FakeToolkit, toolkit_spec

ROOT = DriverRoot(configured=Path("/"))


@pytest.fixture
def fake(tmp_path: Path) -> FakeToolkit:
    """One that works."""
    return FakeToolkit(tmp_path / "bin/nvidia-ctk")


def toolkit(fake: FakeToolkit) -> Toolkit:
    """As the plugin finds it."""
    found = find_toolkit(ROOT, fake.path)
    assert found is not None
    return found


def test_the_drivers_part_of_a_real_spec(fake: FakeToolkit) -> None:
    """Environment, mounts and hooks for every device, in their order; no device, no node, no group."""
    edits = toolkit(fake).generate(ROOT, deadline_s=10).common()
    assert edits.env == (
        ("NVIDIA_CTK_LIBCUDA_DIR", "/usr/lib/x86_64-linux-gnu"),
        ("NVIDIA_VISIBLE_DEVICES", "void"),
    )
    library, socket = edits.mounts
    assert library == Mount(
        host_path="/usr/lib/x86_64-linux-gnu/libcuda.so.580.105.08",
        container_path="/usr/lib/x86_64-linux-gnu/libcuda.so.580.105.08",
        options=("ro", "nosuid", "nodev", "rbind", "rprivate"),
    )
    assert socket.options[-1] == "noexec"
    assert [hook.args[1] for hook in edits.hooks] == [
        *("create-symlinks", "enable-cuda-compat"),
        *("update-ldcache", "disable-device-node-modification"),
    ]
    assert edits.hooks[-1] == Hook(
        path=HOOK_PROGRAM,
        args=("nvidia-cdi-hook", "disable-device-node-modification"),
        env=(("NVIDIA_CTK_DEBUG", "false"),),
    )
    assert edits.device_nodes == ()


def test_it_is_told_where_the_driver_is(fake: FakeToolkit) -> None:
    """The driver's root on the host, and the hook program beside it where there is one."""
    root = DriverRoot(configured=Path("/run/nvidia/driver"))
    toolkit(fake).generate(root, deadline_s=10)
    fake.path.with_name("nvidia-cdi-hook").touch()
    toolkit(fake).generate(root, deadline_s=10)
    call = "cdi generate --format=json --driver-root=/run/nvidia/driver"
    hook = fake.path.with_name("nvidia-cdi-hook")
    assert fake.calls == [call, f"{call} --nvidia-cdi-hook-path={hook}"]


def test_one_that_fails_is_quoted(fake: FakeToolkit) -> None:
    """Its code and the last line of its log."""
    fake.does("echo first >&2; echo 'failed to initialize NVML' >&2; exit 3")
    with pytest.raises(VendorError, match="ended with 3: failed to initialize NVML;"):
        toolkit(fake).generate(ROOT, deadline_s=10)


def test_one_that_does_not_end_is_killed_with_all_it_started(
    fake: FakeToolkit, tmp_path: Path
) -> None:
    """The call returns at its deadline, although a child of it has the pipe still open."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    fake.does(f"sleep 600 > {fifo} & wait")
    began = time.monotonic()
    with pytest.raises(VendorError, match=re.escape("did not end within 0.5 s")):
        toolkit(fake).generate(ROOT, deadline_s=0.5)
    assert time.monotonic() - began < 30
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""  # as soon as nobody can write into it
    os.close(reader)


def test_one_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    """A configured program that is not there, or is none."""
    found = find_toolkit(ROOT, tmp_path / "nvidia-ctk")
    assert found is not None
    with pytest.raises(VendorError, match="nvidia-ctk cannot be run: No such file"):
        found.generate(ROOT, deadline_s=10)


def changed(**edits: Any) -> str:
    """A spec whose common edits are partly others."""
    spec = toolkit_spec()
    spec["containerEdits"] |= edits
    return json.dumps(spec)


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("", "output: Invalid JSON"),
        ("nothing found\n", "output: Invalid JSON"),
        ("[]", "output: "),
        (json.dumps(toolkit_spec()) * 2, "output: Invalid JSON"),
        (json.dumps({"cdiVersion": "0.5.0", "kind": "a/b"}), "containerEdits: Field required"),
        (changed(netDevices=[]), "containerEdits.netDevices: Extra inputs"),
        (changed(mounts=[{"hostPath": "/a"}]), "containerEdits.mounts.0.containerPath: "),
        (changed(mounts=[{"hostPath": "a", "containerPath": "/a"}]), "path 'a' cannot"),
        (changed(mounts=[{"hostPath": "/../a", "containerPath": "/a"}]), "without .."),
        (changed(env=["NOTHING"]), "containerEdits.env.0: "),
        (changed(env=["=NOTHING"]), "environment variable ''"),
        (changed(hooks=[{"hookName": "never", "path": "/a"}]), "hook 'never'"),
        (changed(hooks=[{"hookName": "poststop", "path": "/a", "timeout": 1}]), "timeout: "),
    ],
)
def test_what_is_not_understood_is_refused(fake: FakeToolkit, printed: str, words: str) -> None:
    """The message names the field: what we do not know may be what containers cannot do without."""
    fake.prints(printed)
    with pytest.raises(VendorError) as refused:
        toolkit(fake).generate(ROOT, deadline_s=10).common()
    assert words in str(refused.value)


def test_the_first_of_the_usual_places_is_taken(tmp_path: Path) -> None:
    """Packages before the GPU operator; a host without one has none."""
    root = DriverRoot(host_root=tmp_path)
    assert find_toolkit(root, None) is None
    FakeToolkit(tmp_path / "usr/local/nvidia/toolkit/nvidia-ctk")
    operator = find_toolkit(root, None)
    FakeToolkit(tmp_path / "usr/bin/nvidia-ctk")
    package = find_toolkit(root, None)
    assert operator is not None
    assert package is not None
    assert str(operator.path) == "/usr/local/nvidia/toolkit/nvidia-ctk"
    assert str(package.path) == "/usr/bin/nvidia-ctk"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its root")
def test_in_a_container_it_runs_on_the_hosts_root(tmp_path: Path) -> None:
    """With the host's shell and libraries, and with paths as the host knows them."""
    for file in _shell():
        target = tmp_path / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    (tmp_path / "usr/bin").mkdir(parents=True, exist_ok=True)
    program = tmp_path / "usr/bin/nvidia-ctk"
    program.write_text(
        '#!/bin/sh\necho "$*" > /asked\nwhile read -r line; do echo "$line"; done < /spec\n'
    )
    program.chmod(0o755)
    (tmp_path / "spec").write_text(json.dumps(toolkit_spec("/run/nvidia/driver")) + "\n")
    root = DriverRoot(configured=Path("/run/nvidia/driver"), host_root=tmp_path)
    found = find_toolkit(root, None)
    assert found is not None
    spec = found.generate(root, deadline_s=10)
    assert isinstance(spec, ToolkitSpec)
    assert spec.common().mounts[0].host_path.startswith("/run/nvidia/driver/usr/lib/")
    assert spec.common().mounts[0].container_path.startswith("/usr/lib/")
    assert "--driver-root=/run/nvidia/driver" in (tmp_path / "asked").read_text()


def _shell() -> list[str]:
    """The shell, and the libraries that it needs."""
    said = subprocess.run(["ldd", "/bin/sh"], check=True, capture_output=True, text=True).stdout
    return ["/bin/sh", *re.findall(r"(/\S+) \(0x", said)]
