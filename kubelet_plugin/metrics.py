"""What the plugin counts and measures, behind a method for each thing that happens."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dra_driver.model.health import Cause
from dra_driver.model.reasons import Reason
from dra_driver.model.record import ClaimRecord
from dra_driver.observe.process import process_series
from dra_driver.observe.series import Counter, Histogram, Level, Series, render
from kubelet_plugin import metric_families as families
from kubelet_plugin.activity_metrics import activity_series
from kubelet_plugin.device_readings import DeviceReading
from kubelet_plugin.metric_families import (
    ClaimState,
    Health,
    Operation,
    Outcome,
    Phase,
    RecoveryAction,
    SliceVerb,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """What the node holds and offers now; devices by pool name, conditions by the GPU's."""

    held_claims: Mapping[ClaimState, int] = field(default_factory=dict)
    prepared_devices: Mapping[str, int] = field(default_factory=dict)
    published_devices: Mapping[str, int] = field(default_factory=dict)
    device_health: Mapping[tuple[str, Health], int] = field(default_factory=dict)
    gpu_conditions: Mapping[tuple[str, Cause], int] = field(default_factory=dict)
    devices: Sequence[DeviceReading] = ()


class PluginMetrics:
    """Everything that is counted. Belongs to the event loop; an observation takes a few microseconds.

    `levels` is asked once at each scrape, so that nobody has to report what can be looked up.
    """

    def __init__(self, *, version: str, levels: Callable[[], Levels]) -> None:
        self._levels, self._now = levels, Levels()
        self._requests = Histogram(families.REQUESTS, families.DURATION_BOUNDS_S)
        self._phases = Histogram(families.PHASES, families.DURATION_BOUNDS_S)
        self._errors = Counter(families.ERRORS)
        self._slice_writes = Counter(families.SLICE_WRITES)
        self._recovery_actions = Counter(families.RECOVERY_ACTIONS)
        self._api_requests = Counter(families.API_REQUESTS)
        self.series: tuple[Series, ...] = (
            self._requests,
            self._phases,
            self._errors,
            Level(families.HELD_CLAIMS, lambda: _by_state(self._now.held_claims)),
            Level(families.PREPARED_DEVICES, lambda: _by_pool(self._now.prepared_devices)),
            Level(families.PUBLISHED_DEVICES, lambda: _by_pool(self._now.published_devices)),
            Level(families.DEVICE_HEALTH, lambda: _by_health(self._now.device_health)),
            Level(families.GPU_CONDITION, lambda: dict(self._now.gpu_conditions.items())),
            *activity_series(lambda: self._now.devices),
            self._slice_writes,
            self._recovery_actions,
            self._api_requests,
            Level(families.BUILD_INFO, lambda: {(version,): 1}),
            *process_series(),
        )

    def request(self, operation: Operation, outcome: Outcome, *, seconds: float) -> None:
        """A claim of a call was answered, or its caller has gone."""
        self._requests.observe(operation, outcome, value=seconds)

    def phase(self, operation: Operation, phase: Phase, *, seconds: float) -> None:
        """A part of the work on a claim is over, well or not."""
        self._phases.observe(operation, phase, value=seconds)

    def error(self, operation: Operation, reason: Reason) -> None:
        """A claim was answered with an error."""
        self._errors.add(operation, reason)

    def slice_write(self, verb: SliceVerb) -> None:
        """A ResourceSlice was written or deleted."""
        self._slice_writes.add(verb)

    def recovery(self, action: RecoveryAction) -> None:
        """Recovery has mended something."""
        self._recovery_actions.add(action)

    def api_request(self, verb: str, status: int) -> None:
        """The API server answered with that HTTP status; 0: it did not answer."""
        known = status in families.API_CODES
        code = str(status) if known else families.OTHER if status else families.NO_ANSWER
        self._api_requests.add(verb if verb in families.API_VERBS else families.OTHER, code)

    def page(self) -> str:
        """What `/metrics` answers."""
        self._now = self._levels()
        return render(self.series)


def claims_by_state(records: Iterable[ClaimRecord]) -> Mapping[ClaimState, int]:
    """How many claims are in which state, as their records tell it; damaged ones have no record."""
    return Tally(map(_state, records))


def devices_by_pool(records: Iterable[ClaimRecord]) -> Mapping[str, int]:
    """How many devices of each pool are held by claims that are prepared."""
    return Tally(
        grant.pool for record in records if _state(record) == "prepared" for grant in record.grants
    )


def _state(record: ClaimRecord) -> ClaimState:
    if record.releasing:
        return "releasing"
    return "preparing" if record.preparation is None else "prepared"


def _by_state(amounts: Mapping[ClaimState, int]) -> Mapping[tuple[str, ...], float]:
    return {(state,): amounts.get(state, 0) for state in families.CLAIM_STATES}


def _by_pool(amounts: Mapping[str, int]) -> Mapping[tuple[str, ...], float]:
    return {(pool,): amount for pool, amount in amounts.items()}


def _by_health(amounts: Mapping[tuple[str, Health], int]) -> Mapping[tuple[str, ...], float]:
    return dict(amounts.items())
