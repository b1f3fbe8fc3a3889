"""A host with an NVIDIA driver made of plain files, and an nvidia-ctk made of shell."""

from __future__ import annotations

import json
import os
import shlex
import socket
from pathlib import Path
from typing import Any

from dra_driver.vendors.nvidia.driver_edits import DriverEdits

DRIVER = "580.105.08"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
HOOK_PROGRAM = "/usr/bin/nvidia-cdi-hook"


def build_driver(root: Path, version: str = DRIVER, folder: str = LIBRARIES) -> None:
    """Libraries with the links that an installer makes, programs, and files of others among them."""
    libraries = root / folder
    libraries.mkdir(parents=True, exist_ok=True)
    for name in ("libcuda.so", "libnvidia-ml.so", "libnvidia-glcore.so"):
        (libraries / f"{name}.{version}").write_text(name)
    link(libraries, "libcuda.so.1", f"libcuda.so.{version}")
    link(libraries, "libcuda.so", "libcuda.so.1")
    link(libraries, "libnvidia-ml.so.1", f"libnvidia-ml.so.{version}")
    (libraries / "libc.so.6").write_text("libc")
    (libraries / "libcuda.so.535.54.03").write_text("of a driver that was removed badly")
    programs = root / "usr/bin"
    programs.mkdir(parents=True, exist_ok=True)
    for name in ("nvidia-smi", "nvidia-cuda-mps-control", "bash"):
        (programs / name).write_text(name)


def link(folder: Path, name: str, target: str) -> None:
    """The name leads to the target from now on."""
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)


def listen(path: Path) -> socket.socket:
    """A unix socket there, as of a daemon; close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    server = socket.socket(socket.AF_UNIX)
    former = Path.cwd()
    os.chdir(path.parent)  # a socket's address is short, a test's folder is not
    try:
        server.bind(path.name)
    finally:
        os.chdir(former)
    return server


def build_nodes(root: Path, *paths: str) -> None:
    """Device nodes, as far as anybody looks at them here."""
    for path in paths:
        node = root / path.lstrip("/")
        node.parent.mkdir(parents=True, exist_ok=True)
        node.touch()


def toolkit_spec(driver_root: str = "", version: str = DRIVER) -> dict[str, Any]:
    """The shape of what nvidia-ctk 1.18 prints: devices, and what all of them need."""
    library = f"/usr/lib/x86_64-linux-gnu/libcuda.so.{version}"
    socket_path = "/run/nvidia-persistenced/socket"
    options = ["ro", "nosuid", "nodev", "rbind", "rprivate"]
    hooks = (
        ["create-symlinks", "--link", "libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so"],
        ["enable-cuda-compat", f"--host-driver-version={version}"],
        ["update-ldcache", "--folder", "/usr/lib/x86_64-linux-gnu"],
        ["disable-device-node-modification"],
    )
    return {
        "cdiVersion": "0.7.0",
        "kind": "nvidia.com/gpu",
        "devices": [
            {"name": name, "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}}
            for name in ("0", "all")
        ],
        "containerEdits": {
            "env": [
                "NVIDIA_CTK_LIBCUDA_DIR=/usr/lib/x86_64-linux-gnu",
                "NVIDIA_VISIBLE_DEVICES=void",
            ],
            "deviceNodes": [{"path": "/dev/nvidiactl", "major": 195, "minor": 255}],
            "additionalGids": [44],
            "hooks": [
                {
                    "hookName": "createContainer",
                    "path": HOOK_PROGRAM,
                    "args": ["nvidia-cdi-hook", *hook],
                    "env": ["NVIDIA_CTK_DEBUG=false"],
                }
                for hook in hooks
            ],
            "mounts": [
                {"hostPath": driver_root + library, "containerPath": library, "options": options},
                {
                    "hostPath": driver_root + socket_path,
                    "containerPath": socket_path,
                    "options": [*options, "noexec"],
                },
            ],
        },
    }


def settled(edits: DriverEdits) -> None:
    """What is being made is made."""
    with edits._changed:
        assert edits._changed.wait_for(lambda: edits._wanted is None, 30)


class FakeToolkit:
    """An nvidia-ctk at `path`, to be told what to do; `calls` lists the arguments of each call of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._calls = path.with_name("calls")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.prints(json.dumps(toolkit_spec()))

    def prints(self, text: str, then: str = ":") -> None:
        """It prints that, and more to its log, and goes on with `then`."""
        self.does(f"echo 'INFO Auto-detected mode' >&2\nprintf '%s' {shlex.quote(text)}\n{then}")

    def does(self, script: str) -> None:
        """It writes its call down and runs the script; it is another program than before."""
        draft = self.path.with_suffix(".new")
        draft.write_text(f'#!/bin/sh\necho "$*" >> {shlex.quote(str(self._calls))}\n{script}\n')
        draft.chmod(0o755)
        draft.replace(self.path)

    @property
    def calls(self) -> list[str]:
        """In their order."""
        return self._calls.read_text().splitlines() if self._calls.exists() else []
