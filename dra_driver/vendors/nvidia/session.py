"""NVML initialised in this process: by the first call, and anew after the driver was reloaded or a GPU was plugged in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from dra_driver.vendors.nvidia.nvml import Code, NvmlError

_RELOADED = frozenset({Code.UNINITIALIZED, Code.DRIVER_NOT_LOADED, Code.LIB_RM_VERSION_MISMATCH})
"""How NVML says that the driver on which it was initialised is not there any more."""


@dataclass(frozen=True, slots=True)
class Held:
    """What NVML gave in its `period`-th initialisation; a handle is good for that period alone."""

    value: Any
    period: int


class OutdatedHandle(NvmlError):
    """A handle of a former initialisation: NVML was initialised anew since, which need not be done again."""

    def __init__(self, function: str) -> None:
        super().__init__(Code.UNINITIALIZED, f"{function} with an outdated handle")


class Session:
    """Makes calls of the module that `load` returns, initialised. Safe to use from several threads.

    NVML is never shut down under a call: nothing says what becomes of such a call, and one that hangs would hang the
    shutdown, and with it every other GPU. While one hangs NVML therefore stays as it was initialised.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._library: Any = None
        self._owed: dict[int, tuple[Held, str]] = {}
        self._period = 0
        self._under_way = 0

    def begin(self, function: str, *arguments: Any) -> Held:
        """The result of a call that needs no handle; if the driver was reloaded, NVML is initialised anew and asked again."""
        try:
            return self._attempt(function, arguments)
        except NvmlError as error:
            if error.code not in _RELOADED:
                raise
        self.end()
        return self._attempt(function, arguments)

    def hold(self, function: str, *arguments: Any) -> Held:
        """The result of a call with handles. Whoever holds them must begin again where the driver was reloaded."""
        try:
            return self._attempt(function, arguments)
        except OutdatedHandle:
            raise
        except NvmlError as error:
            if error.code in _RELOADED:
                self.end()
            raise

    def call(self, function: str, *arguments: Any) -> Any:
        """As `hold`, for results that are no handles."""
        return self.hold(function, *arguments).value

    def borrow(self, function: str, give_back: str) -> Held:
        """As `hold`, for what takes the other function to be given back: by `give_back`, or by `end` where that comes first."""
        with self._calling():  # else NVML could be given back before this is written down
            held = self.hold(function)
            with self._lock:
                self._owed[id(held)] = held, give_back
        return held

    def give_back(self, borrowed: Held) -> None:
        """It is not used again; what was given back before is left alone."""
        with self._lock:
            owed = self._owed.pop(id(borrowed), None)
        if owed is not None:
            self.call(owed[1], borrowed)

    def is_good(self, held: Held) -> bool:
        """Whether it is of the present initialisation."""
        with self._lock:
            return self._library is not None and held.period == self._period

    def end(self) -> bool:
        """Give the library back, and all that is borrowed of it, unless a call is under way; whether it is given back.

        All handles are void then, and the next call initialises it. Nobody can be using what is given back here.
        """
        with self._lock:
            if self._under_way:
                return False
            library, self._library = self._library, None
            owed, self._owed = self._owed, {}
            if library is not None:
                for held, function in owed.values():
                    with suppress(library.NVMLError):
                        getattr(library, f"nvml{function}")(held.value)
                with suppress(library.NVMLError):
                    library.nvmlShutdown()
            return True

    def _attempt(self, function: str, arguments: tuple[Any, ...]) -> Held:
        with self._calling() as (library, period):
            if any(isinstance(one, Held) and one.period != period for one in arguments):
                raise OutdatedHandle(f"nvml{function}")
            plain = (one.value if isinstance(one, Held) else one for one in arguments)
            try:
                return Held(getattr(library, f"nvml{function}")(*plain), period)
            except library.NVMLError as error:
                raise NvmlError(error.value, f"nvml{function}") from error

    @contextmanager
    def _calling(self) -> Iterator[tuple[Any, int]]:
        with self._lock:
            if self._library is None:
                self._library = self._load()
                self._period += 1
            library, period = self._library, self._period
            self._under_way += 1
        try:
            yield library, period
        finally:
            with self._lock:
                self._under_way -= 1
