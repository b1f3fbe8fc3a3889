"""How calls went: one object that the service, and everything behind it, reports to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from dra_driver.model.claim import ClaimRef
from dra_driver.model.errors import DraError
from dra_driver.model.kinds import RESOURCE_CLAIM
from dra_driver.model.reasons import REASONS, Reason
from dra_driver.ports import JsonObject, Recorder
from kubelet_plugin.metric_families import Operation, Outcome, Phase
from kubelet_plugin.metrics import PluginMetrics

_operation: ContextVar[Operation | None] = ContextVar("operation", default=None)
"""What the current task works on, so that code far below a call need not be told."""


class Telemetry:
    """Measures calls and their phases, and writes Events about those that failed."""

    def __init__(
        self,
        metrics: PluginMetrics,
        recorder: Recorder,
        *,
        node: str,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.metrics = metrics
        self.recorder = recorder
        self._node = node
        self._timer = timer

    @contextmanager
    def call(self, operation: Operation, claim: ClaimRef) -> Iterator[None]:
        """Around the work on one claim of a call: how it ended is counted, and a failure becomes an Event on the claim."""
        token, began = _operation.set(operation), self._timer()
        outcome: Outcome = "cancelled"
        try:
            yield
            outcome = "done"
        except Exception as error:
            outcome = "failed"
            self._report_failure(operation, claim, error)
            raise
        finally:
            self.metrics.request(operation, outcome, seconds=self._timer() - began)
            _operation.reset(token)

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Around a part of a call's work. What is done outside of calls (recovery) is not measured."""
        operation, began = _operation.get(), self._timer()
        try:
            yield
        finally:
            if operation is not None:
                self.metrics.phase(operation, phase, seconds=self._timer() - began)

    def about_claim(self, claim: ClaimRef, reason: Reason, message: str) -> None:
        """An Event on the claim."""
        level = REASONS[reason].level
        self.recorder.event(claim_reference(claim), level=level, reason=reason, message=message)

    def _report_failure(self, operation: Operation, claim: ClaimRef, error: Exception) -> None:
        reason, what = Reason.INTERNAL_ERROR, f"{type(error).__name__}; see the plugin's log"
        if isinstance(error, DraError):
            reason, what = Reason.of(error.reason), str(error)
        self.metrics.error(operation, reason)
        self.about_claim(claim, reason, f"{operation} on node {self._node}: {what}")


def claim_reference(claim: ClaimRef) -> JsonObject:
    """How Events name the claim."""
    return {
        "apiVersion": RESOURCE_CLAIM.api_version,
        "kind": RESOURCE_CLAIM.kind,
        "namespace": claim.namespace,
        "name": claim.name,
        "uid": claim.uid,
    }
