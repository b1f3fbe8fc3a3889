"""One plugin per data folder: the lock that says so, held for the process's life and freed by the kernel even after SIGKILL."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dra_driver.model.errors import StartError


@contextmanager
def sole_instance(data_dir: Path, node: str) -> Iterator[None]:
    """Nobody else serves this data folder while the block runs; StartError names who does already."""
    path = data_dir / "instance.lock"
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(
                f"{path} is held by {file.read().strip() or 'another process'}: a plugin serves node {node} already; "
                "stop that one, or give this one a dataDir of its own"
            ) from None
        file.truncate()
        file.write(f"process {os.getpid()} for node {node}\n")
        file.flush()
        yield
