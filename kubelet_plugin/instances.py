"""Which plugin processes share this data folder: one usually, two while the DaemonSet rolls.

Each has a file that it keeps locked for life, so a process that died is told from one that lives. Only one publishes and reconciles.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import structlog

from dra_driver.model.errors import StartError
from kubelet_plugin.arrivals import Arrivals

_log = structlog.get_logger(__name__)

_FILE = re.compile(r"instance(-.+)?\.lock")
_SERVING = "serving"
_TEXT_BYTES = 64  # always written whole, so that nothing of a longer text is left behind it


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

    def __init__(self, path: Path, descriptor: int, arrivals: Arrivals) -> None:
        self._path = path
        self._descriptor = descriptor
        self._arrivals = arrivals
        self._alone_since: int | None = None
        self._leads = False
        self._is_unwritten = False
        self._said = ""
        self._standing = Standing(time.monotonic_ns(), serving=False)
        self._write()

    @property
    def name(self) -> str:
        """The file's name: what records say about their owner."""
        return self._path.stem

    def announce(self) -> None:
        """The kubelet knows this process: older ones may leave to it what only one should do.

        Where that cannot be written now, it is when `leads` is asked next.
        """
        self._standing = self._standing._replace(serving=True)
        self._is_unwritten = True
        self._write_standing()

    def alone(self) -> bool:
        """Whether no other process may change records or hardware now. One that starts later looks at them first."""
        return self.peace() is not None

    def peace(self) -> int | None:
        """The same number as long as no other process can have changed anything; None while one may.

        Asked several times for each call, so it reads memory that all processes share, and looks at files only after somebody came.
        """
        arrivals = self._arrivals.count()
        if arrivals is None or arrivals != self._alone_since:
            if arrivals is None or self._peers() != []:
                return None
            self._alone_since = arrivals
        return arrivals

    def leads(self) -> bool:
        """Whether publishing and reconciling are this process's work; as before where that cannot be found out now.

        Asked every few seconds, and so the place to try again what failed.
        """
        self._write_standing()
        if self._arrivals.count() is None:
            self._join_again()
        peers = [] if self.alone() else self._peers()
        if peers is not None:
            self._leads = all(self._standing.precedes(peer) for peer in peers)
        return self._leads

    def _peers(self) -> list[Standing] | None:
        """The other live processes; None where nobody can tell."""
        try:
            others = [path for path in _files(self._path.parent) if path != self._path]
            return [peer for path in others if (peer := _live_peer(path)) is not None]
        except OSError as error:
            self._warn("other processes cannot be looked for; there may be some", error)
            return None

    def _join_again(self) -> None:
        """Somebody removed the number that all share: whoever looks at the new one learns that there is somebody."""
        try:
            with self._arrivals.joining():
                pass
        except OSError as error:
            self._warn("newcomers are not noticed at once; every call looks for them", error)

    def _write_standing(self) -> None:
        if not self._is_unwritten:
            return
        try:
            self._write()
        except OSError as error:
            self._warn("other processes are not told that the kubelet knows this one", error)
        else:
            self._is_unwritten = False

    def _write(self) -> None:
        stage = _SERVING if self._standing.serving else "starting"
        text = f"{self._standing.since_ns} {os.getpid()} {stage}\n"
        os.pwrite(self._descriptor, text.encode().ljust(_TEXT_BYTES), 0)

    def _warn(self, what: str, error: OSError) -> None:
        """Once for each trouble, as it is met again and again."""
        if self._said != what:
            _log.warning(what, path=str(self._path), error=str(error))
        self._said = what


@contextmanager
def joined(data_dir: Path, pod_uid: str | None) -> Iterator[Instance]:
    """This process is one of the folder's while the block runs. StartError if a process of the same name lives, or nothing can be written.

    Without `pod_uid` there is one name, and so one process. The file stays when the block ends: whoever joins next takes it over, with
    the space that it has on a disk which may be full by then.
    """
    path = data_dir / (f"instance-{pod_uid}.lock" if pod_uid else "instance.lock")
    try:
        instance, descriptor = _join(path)
    except OSError as error:
        raise StartError(
            f"folder {data_dir}: {error}; free space on its filesystem, and make it writable for this user"
        ) from error
    try:
        yield instance
    finally:
        os.close(descriptor)


def _join(path: Path) -> tuple[Instance, int]:
    """This process, and the descriptor that it keeps open as long as it lives."""
    arrivals = Arrivals(path.parent)
    with arrivals.joining():
        if _live_peer(path) is not None:
            process = path.read_text(encoding="ascii").split()[1]
            raise StartError(
                f"{path} is held by process {process}: a plugin serves this folder already; stop that one, "
                "or give this one a dataDir or a podUid of its own"
            )
        for former in _files(path.parent):
            if _live_peer(former) is None:
                with suppress(FileNotFoundError):
                    former.rename(path)  # of all that died one file is left, and it is this one's
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            instance = Instance(path, descriptor, arrivals)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            os.close(descriptor)
            raise
    return instance, descriptor


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
        since_ns, _, stage = os.read(descriptor, _TEXT_BYTES).decode("ascii").split()
        return Standing(int(since_ns), stage == _SERVING)
    else:
        return None
    finally:
        os.close(descriptor)
