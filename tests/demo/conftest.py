"""`dra sandbox` as a user runs it: the installed command, in a folder with a short name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Shell:
    """Runs commands of the virtual environment with a home and a working folder of their own."""

    home: Path

    @property
    def sandbox(self) -> Path:
        """Where sandboxes are made."""
        return self.home / "s"

    def environment(self) -> dict[str, str]:
        """Nothing of the user's kubectl settings; the sandbox's, once there is one."""
        return {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "KUBECONFIG": str(self.sandbox / "kubeconfig"),
        }

    def run(self, *command: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """The command's outcome, whatever it is."""
        return subprocess.run(
            command,
            cwd=REPOSITORY,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def output(self, *command: str) -> str:
        """What the command prints; it must succeed."""
        done = self.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[str]:
        """The command, running in a process group of its own, as a terminal would run it."""
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def processes(self) -> list[int]:
        """All that were started for this sandbox and live."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and bytes(self.sandbox) in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


def soon(reached: Callable[[], bool], *, within_s: float = 20) -> bool:
    """Whether it becomes so in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if reached():
            return True
        time.sleep(0.05)
    return reached()


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    """A shell; no process of its sandboxes outlives it."""
    home = Path(tempfile.mkdtemp(prefix="dra-"))
    shell = Shell(home)
    yield shell
    for pid in shell.processes():
        os.kill(pid, 9)
    shutil.rmtree(home, ignore_errors=True)
