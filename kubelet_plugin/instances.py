"""Which plugin processes share this data folder: one usually, two while the DaemonSet rolls.

Each has a file that it keeps locked for life, so a process that died is told from one that lives. Only one publishes and reconciles.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path
from typing import NamedTuple

from dra_driver.model.errors import StartError

_FILE = re.compile(r"instance(-.+)?\.lock")
_SERVING = "serving"
_ARRIVALS = struct.Struct("=Q")


class Standing(NamedTuple):
    """A live process: since when (the boot's clock), and whether the kubelet knows it already."""

    since_ns: int
    serving: bool

    def precedes(self, other: Standing) -> bool:
        """The newest that the kubelet knows comes first; of those that it does not know, the oldest: a start changes nothing."""
        if self.serving != other.serving:
            return self.serving
        return (self.since_ns > other.since_ns) == self.serving


class Instance:
    """This process among those that serve the folder. Make it by `joined`."""

    def __init__(self, path: Path, descriptor: int, arrivals: mmap) -> None:
        self._path = path
        self._descriptor = descriptor
        self._arrivals = arrivals
        self._alone_since: int | None = None
        self._standing = Standing(time.monotonic_ns(), serving=False)
        self._write("starting")

    @property
    def name(self) -> str:
        """The file's name: what records say about their owner."""
        return self._path.stem

    def announce(self) -> None:
        """The kubelet knows this process: older ones may leave to it what only one should do."""
        self._standing = self._standing._replace(serving=True)
        self._write(_SERVING)

    def alone(self) -> bool:
        """Whether no other process may change records or hardware now. One that starts later looks at them first."""
        return self.peace() is not None

    def peace(self) -> int | None:
        """The same number as long as no other process can have changed anything; None while one may.

        Asked several times for each call, so it reads memory that all processes share, and looks at files only after somebody came.
        """
        arrivals: int = _ARRIVALS.unpack(self._arrivals)[0]
        if arrivals != self._alone_since:
            if self._peers():
                return None
            self._alone_since = arrivals
        return arrivals

    def leads(self) -> bool:
        """Whether publishing and reconciling are this process's work."""
        return all(self._standing.precedes(peer) for peer in self._peers())

    def _peers(self) -> list[Standing]:
        others = [path for path in _files(self._path.parent) if path != self._path]
        return [peer for path in others if (peer := _live_peer(path)) is not None]

    def _write(self, stage: str) -> None:
        text = f"{self._standing.since_ns} {os.getpid()} {stage}\n"
        os.pwrite(self._descriptor, text.encode(), 0)


@contextmanager
def joined(data_dir: Path, pod_uid: str | None) -> Iterator[Instance]:
    """This process is one of the folder's while the block runs. StartError if a process of the same name lives.

    Without `pod_uid` there is one name, and so one process.
    """
    path = data_dir / (f"instance-{pod_uid}.lock" if pod_uid else "instance.lock")
    with _arriving(data_dir) as arrivals:
        if _live_peer(path) is not None:
            process = path.read_text(encoding="ascii").split()[1]
            raise StartError(
                f"{path} is held by process {process}: a plugin serves this folder already; stop that one, "
                "or give this one a dataDir or a podUid of its own"
            )
        for former in _files(data_dir):
            if _live_peer(former) is None:
                former.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        instance = Instance(path, descriptor, arrivals)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield instance
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def _arriving(data_dir: Path) -> Iterator[mmap]:
    """One process at a time looks for others and joins them; the memory that all share counts those that did."""
    descriptor = os.open(data_dir / "arrivals", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, _ARRIVALS.size)
        arrivals = mmap(descriptor, _ARRIVALS.size)
        yield arrivals
        _ARRIVALS.pack_into(arrivals, 0, _ARRIVALS.unpack(arrivals)[0] + 1)
    finally:
        fcntl.flock(
            descriptor, fcntl.LOCK_UN
        )  # closing is not enough: the memory keeps the file open
        os.close(descriptor)


def _files(data_dir: Path) -> list[Path]:
    with os.scandir(data_dir) as found:
        return [data_dir / entry.name for entry in found if _FILE.fullmatch(entry.name)]


def _live_peer(path: Path) -> Standing | None:
    """What the file says, if the process that wrote it lives: its lock cannot be had then."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        since_ns, _, stage = os.read(descriptor, 64).decode("ascii").split()
        return Standing(int(since_ns), stage == _SERVING)
    else:
        return None
    finally:
        os.close(descriptor)
