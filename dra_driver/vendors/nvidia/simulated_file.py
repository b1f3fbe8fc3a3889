"""A simulated GPU's MIG state on disk: it outlives processes and is shared by them, as the state of hardware is."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from dra_driver.model.device import Placement
from dra_driver.vendors.nvidia.nvml import MigMode
from dra_driver.vendors.nvidia.simulated_state import ComputeState, InstanceState, MigState

T = TypeVar("T")


class StateFile:
    """One GPU's state. Readers see whole states only; writers take turns, across processes."""

    def __init__(self, path: Path, initial: MigState) -> None:
        self._path = path
        with self._locked():
            if not path.exists():
                self._write(initial)

    def read(self) -> MigState:
        """The state now."""
        return _decoded(json.loads(self._path.read_text()))

    def change(self, rule: Callable[[MigState], tuple[MigState, T]]) -> T:
        """Replace the state by what the rule makes of it; the rule's other result is returned."""
        with self._locked():
            state, result = rule(self.read())
            self._write(state)
        return result

    def _write(self, state: MigState) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(asdict(state)))
        new.replace(self._path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _decoded(state: dict[str, Any]) -> MigState:
    return MigState(
        mode=MigMode(state["mode"]),
        pending=MigMode(state["pending"]),
        created=state["created"],
        instances=tuple(
            InstanceState(
                id=instance["id"],
                profile_id=instance["profile_id"],
                placement=Placement(**instance["placement"]),
                computes=tuple(ComputeState(**compute) for compute in instance["computes"]),
            )
            for instance in state["instances"]
        ),
    )
