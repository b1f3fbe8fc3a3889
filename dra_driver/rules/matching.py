"""What the allocator asks of whoever evaluates selectors, and the error that ends an attempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dra_driver.model.errors import DraError
from dra_driver.model.slices import Device


class AllocationError(DraError):
    """Where the scheduler fails the whole attempt: trying other devices, or another node, would not help."""

    reason = "AllocationFailed"


class Matcher(Protocol):
    """Evaluates selectors. Answers for equal arguments are equal."""

    def matches(self, expressions: Sequence[str], device: Device, driver: str) -> bool:
        """Whether all of them hold (none: yes); AllocationError where one does not compile, fails or is no bool."""
