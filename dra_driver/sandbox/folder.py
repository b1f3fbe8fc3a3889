"""The sandbox's folder: everything it writes is below, and it removes only a folder that it made itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from dra_driver.model.errors import StartError

_MARKER = "sandbox.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a running sandbox says of itself. `server` is empty until it is ready."""

    pid: int
    server: str = ""


@contextmanager
def sandbox_folder(folder: Path) -> Iterator[Path]:
    """A fresh folder for the block, removed afterwards. StartError if somebody's files, or a live sandbox, are in it.

    A link stays, and stands for the folder that it names.
    """
    folder = folder.resolve()
    running = read_running(folder)
    if running is not None and is_alive(running):
        raise StartError(
            f"a sandbox runs in {folder} already (process {running.pid}); end it with `dra sandbox down --dir {folder}`, or name another --dir"
        )
    if folder.exists() and running is None and any(folder.iterdir()):
        raise StartError(
            f"folder {folder} holds files that are not a sandbox's; name another --dir"
        )
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise StartError(
            f"folder {folder} cannot be made: {error.strerror}; name another --dir"
        ) from error
    write_running(folder, Running(pid=os.getpid()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_running(folder: Path) -> Running | None:
    """What the folder says of its sandbox; None where there is none."""
    try:
        return Running(**json.loads((folder / _MARKER).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as error:
        raise StartError(f"{folder / _MARKER} is damaged ({error}); remove the folder") from error


def write_running(folder: Path, running: Running) -> None:
    """Say it, at once and whole."""
    draft = folder / f".{_MARKER}"
    draft.write_text(json.dumps(asdict(running)))
    draft.rename(folder / _MARKER)


def write_kubeconfig(path: Path, server: str) -> None:
    """A kubeconfig with which kubectl, and `dra`, talk to the sandbox."""
    cluster = {"name": "sandbox", "cluster": {"server": server}}
    context = {"name": "sandbox", "context": {"cluster": "sandbox", "user": "sandbox"}}
    user = {"name": "sandbox", "user": {}}
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "sandbox"}
    path.write_text(
        json.dumps(
            config | {"clusters": [cluster], "contexts": [context], "users": [user]}, indent=1
        )
    )


def is_alive(running: Running) -> bool:
    """Whether that process is there and is a sandbox: process ids are used again."""
    try:
        command = Path(f"/proc/{running.pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"sandbox" in command
