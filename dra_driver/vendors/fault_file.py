"""Faults of simulated hardware as its calls meet them: looked up on each call, so that any process may change them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dra_driver.config.faults import SimulatedFault, Vocabulary, parse_faults
from dra_driver.model.errors import VendorError

_HEALTHY = SimulatedFault()
_LOOK_S = 0.02


class FaultFile:
    """The faults that the file at `path` says of `gpus`; no file, no faults. Safe to use from several threads.

    A file that cannot be understood is a retryable VendorError of every call: perhaps half of it is not written yet.
    """

    def __init__(self, path: Path, words: Vocabulary) -> None:
        self.gpus = tuple(words.gpus)
        self._path = path
        self._words = words
        self._parsed: tuple[bytes, Mapping[str, SimulatedFault]] = (b"", {})

    def any(self) -> bool:
        """Whether anything at all is wrong now."""
        return bool(self._faults())

    def of(self, device: str) -> SimulatedFault:
        """What is wrong with the device now: a PCI address, a MIG device's UUID, or `driver`."""
        return self._faults().get(device, _HEALTHY)

    def present(self, gpus: Iterable[str]) -> tuple[str, ...]:
        """Those of the GPUs that are not absent."""
        faults = self._faults()
        return tuple(gpu for gpu in gpus if not faults.get(gpu, _HEALTHY).absent)

    @contextmanager
    def around(
        self, device: str, call: str, refuse: Callable[[str | None], Exception]
    ) -> Iterator[None]:
        """Make the call within meet the device's fault; `refuse` makes an exception of its error, or of None if it is absent."""
        fault = self.of(device)
        if fault.absent:
            raise refuse(None)
        if fault is _HEALTHY or not fault.concerns(call):
            yield
            return
        if fault.kill == "before":
            _kill()
        time.sleep(fault.delay_s)
        self._hang(device, call)
        if fault.error:
            raise refuse(fault.error)
        yield
        if fault.kill == "after":
            _kill()

    def _hang(self, device: str, call: str) -> None:
        began = time.monotonic()
        while (fault := self.of(device)).concerns(call):
            if time.monotonic() - began >= fault.hang_s:
                return
            time.sleep(_LOOK_S)

    def _faults(self) -> Mapping[str, SimulatedFault]:
        """Compared as text and not by its time: two changes within a tick of the clock would look like one."""
        if not os.access(self._path, os.F_OK):
            return {}  # as a rule there is no file, and to find that out by an exception costs more than the call
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        known, faults = self._parsed
        if content != known:
            try:
                faults = parse_faults(content, self._words)
            except ValueError as error:
                raise VendorError(f"{self._path}: {error}", retryable=True) from error
            self._parsed = (content, faults)
        return faults


def _kill() -> None:
    """End this process as a power cut or the kernel's memory killer would: nothing is flushed, nothing cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)
