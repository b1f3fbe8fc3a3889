"""When NVML is shut down, and when it is not: over a library that hangs on demand."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dra_driver.vendors.nvidia.nvml import Code, NvmlError
from dra_driver.vendors.nvidia.session import Session


class Refusal(Exception):
    def __init__(self, value: int) -> None:
        self.value = value


class Library:
    """A module like pynvml with two functions: one that waits to be let go, and one that fails with `code`."""

    NVMLError = Refusal

    def __init__(self) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()
        self.code = Code.SUCCESS
        self.shutdowns = self.owed = 0

    def nvmlShutdown(self) -> None:  # noqa: N802 -- as pynvml calls it
        self.shutdowns += 1
        self.code = Code.SUCCESS

    def nvmlBorrow(self) -> str:  # noqa: N802
        self.owed += 1
        return "borrowed"

    def nvmlGiveBack(self, what: str) -> None:  # noqa: N802
        assert (what, self.shutdowns) == ("borrowed", 0)
        self.owed -= 1

    def nvmlHang(self) -> str:  # noqa: N802
        self.entered.set()
        assert self.let_go.wait(30)
        return "done"

    def nvmlAsk(self) -> str:  # noqa: N802
        if self.code:
            raise Refusal(self.code)
        return "answer"


def test_nvml_is_not_shut_down_under_a_call() -> None:
    """While a call hangs a reloaded driver is an error that may be retried; once the call is over NVML recovers."""
    library = Library()
    session = Session(lambda: library)
    with ThreadPoolExecutor(1) as other:
        hanging = other.submit(session.call, "Hang")
        try:
            assert library.entered.wait(30)
            library.code = Code.DRIVER_NOT_LOADED
            with pytest.raises(NvmlError) as refused:
                session.begin("Ask")
            assert refused.value.retryable
            assert not session.end()
            assert library.shutdowns == 0
        finally:
            library.let_go.set()
        assert hanging.result() == "done"
    assert session.begin("Ask").value == "answer"
    assert library.shutdowns == 1


def test_a_call_that_hangs_delays_no_other() -> None:
    """Another GPU's thread gets its answer meanwhile."""
    library = Library()
    session = Session(lambda: library)
    with ThreadPoolExecutor(1) as other:
        hanging = other.submit(session.call, "Hang")
        try:
            assert library.entered.wait(30)
            assert session.call("Ask") == "answer"
            assert not hanging.done()
        finally:
            library.let_go.set()


def test_what_is_borrowed_is_given_back_once() -> None:
    """By whoever borrowed it, or with NVML itself and before it; late is too late then."""
    library = Library()
    session = Session(lambda: library)
    first, second = (session.borrow("Borrow", give_back="GiveBack") for _ in range(2))
    session.give_back(first)
    session.give_back(first)
    assert library.owed == 1
    assert session.end()
    assert (library.owed, library.shutdowns) == (0, 1)
    session.give_back(second)
    assert library.owed == 0


def test_nothing_is_given_back_under_a_call() -> None:
    """Another GPU's thread may be using what it borrowed at this very moment."""
    library = Library()
    session = Session(lambda: library)
    session.borrow("Borrow", give_back="GiveBack")
    with ThreadPoolExecutor(1) as other:
        hanging = other.submit(session.call, "Hang")
        try:
            assert library.entered.wait(30)
            assert not session.end()
            assert library.owed == 1
        finally:
            library.let_go.set()
        hanging.result()
    assert session.end()
    assert library.owed == 0


def test_an_error_of_one_gpu_leaves_nvml_alone() -> None:
    """Only errors that speak of the driver end the session."""
    library = Library()
    session = Session(lambda: library)
    library.code = Code.GPU_IS_LOST
    for ask in (session.begin, session.call):
        with pytest.raises(NvmlError):
            ask("Ask")
    assert library.shutdowns == 0
