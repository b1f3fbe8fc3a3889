"""Programs that run beside the tests: started with a log each, ended by their own process id."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_LAST_LINES = 15
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Starts a program that the kernel ends when this process ends, even by SIGKILL."""


class Failed(Exception):
    """A program did not start, or ended by itself; the message ends with the last lines that it printed."""


@contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    stop_s: float = 20.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """The program runs while the block does, and dies with this process whatever becomes of it. Its output goes to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*_DIES_WITH_US, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
        )
    try:
        yield process
    finally:
        stop(process, within_s=stop_s)


def stop(process: subprocess.Popen[bytes], *, within_s: float) -> None:
    """End it in order, or by force after a while."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(
    reached: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, *, within_s: float
) -> None:
    """Returns as soon as it is so. Raises Failed when the program ends before, or time is up."""
    name = log.stem
    deadline = time.monotonic() + within_s
    while not reached():
        if process.poll() is not None:
            raise Failed(f"{name} ended with {process.returncode}:\n{last_lines(log)}")
        if time.monotonic() > deadline:
            raise Failed(f"{name} is not ready after {within_s:g} s:\n{last_lines(log)}")
        time.sleep(0.05)


def last_lines(log: Path) -> str:
    """The end of what was printed."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:])


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
