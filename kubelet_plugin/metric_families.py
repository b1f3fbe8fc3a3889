"""The plugin's metrics as they are declared: names, meanings, and every value that a label may take.

No label but those of `*_info` names a pod, a claim or a UID, so that the number of series is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias, get_args

from dra_driver.model.health import Cause
from dra_driver.model.reasons import Reason
from dra_driver.observe.series import Family

Operation: TypeAlias = Literal["prepare", "unprepare"]
Outcome: TypeAlias = Literal["done", "failed", "cancelled"]
Phase: TypeAlias = Literal["fetch", "wait", "plan", "record", "sync", "hardware", "cdi"]
SliceVerb: TypeAlias = Literal["create", "replace", "delete"]
RecoveryAction: TypeAlias = Literal[
    "work_undone", "claim_released", "record_rebuilt", "cdi_written", "cdi_removed"
]
ClaimState: TypeAlias = Literal["preparing", "prepared", "releasing", "damaged"]
Health: TypeAlias = Literal["healthy", "unhealthy", "unknown"]


API_VERBS = ("get", "list", "watch", "create", "replace", "patch", "delete")
API_CODES = (200, 201, 400, 401, 403, 404, 409, 410, 422, 429, 500, 502, 503, 504)
NO_ANSWER, OTHER = "none", "other"
DURATION_BOUNDS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 45.0),
)

CLAIM_STATES: tuple[ClaimState, ...] = get_args(ClaimState)

REQUESTS = Family(
    name="dra_request_duration_seconds",
    kind="histogram",
    meaning="How long each claim of a kubelet's call took, replays included.",
    labels={"operation": get_args(Operation), "outcome": get_args(Outcome)},
)
PHASES = Family(
    name="dra_phase_duration_seconds",
    kind="histogram",
    meaning="How long the parts of such a call took: reading the claim, waiting for its devices, and so on.",
    labels={"operation": get_args(Operation), "phase": get_args(Phase)},
)
ERRORS = Family(
    name="dra_errors_total",
    kind="counter",
    meaning="Claims that were answered with an error; for the reasons see events.md.",
    labels={"operation": get_args(Operation), "reason": tuple(Reason)},
)
HELD_CLAIMS = Family(
    name="dra_held_claims",
    kind="gauge",
    meaning="Claims on record on this node.",
    labels={"state": CLAIM_STATES},
)
PREPARED_DEVICES = Family(
    name="dra_prepared_devices",
    kind="gauge",
    meaning="Devices that prepared claims hold.",
    labels={"pool": ()},
)
PUBLISHED_DEVICES = Family(
    name="dra_published_devices",
    kind="gauge",
    meaning="Devices in the slices that the API server has.",
    labels={"pool": ()},
)
DEVICE_HEALTH = Family(
    name="dra_device_health",
    kind="gauge",
    meaning="Devices by the health that the kubelet is told: healthy, unhealthy, unknown.",
    labels={"pool": (), "health": get_args(Health)},
)
GPU_CONDITION = Family(
    name="dra_gpu_condition",
    kind="gauge",
    meaning="What is wrong with GPUs that answer and tell it. 0: nothing; 1: marked, still given out; 2: no new claim gets what is concerned.",
    labels={"gpu": (), "cause": tuple(Cause)},
)
SLICE_WRITES = Family(
    name="dra_slice_writes_total",
    kind="counter",
    meaning="ResourceSlices that were written or deleted.",
    labels={"verb": get_args(SliceVerb)},
)
RECOVERY_ACTIONS = Family(
    name="dra_recovery_actions_total",
    kind="counter",
    meaning="What recovery had to mend, at the start and later.",
    labels={"action": get_args(RecoveryAction)},
)
API_REQUESTS = Family(
    name="dra_api_requests_total",
    kind="counter",
    meaning="Answers of the API server by HTTP status; none: it did not answer.",
    labels={
        "verb": (*API_VERBS, OTHER),
        "code": (*map(str, API_CODES), NO_ANSWER, OTHER),
    },
)
BUILD_INFO = Family(
    name="dra_build_info",
    kind="gauge",
    meaning="Always 1; the label says which version runs.",
    labels={"version": ()},
)


def table(families: Iterable[Family]) -> str:
    """The families as rows of their page."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    rows += [f"| `{one.name}` | {one.kind} | {_labels(one)} | {one.meaning} |" for one in families]
    return "\n".join(rows) + "\n"


def _labels(family: Family) -> str:
    return "; ".join(
        f"`{label}`: {', '.join(values)}" if values else f"`{label}`"
        for label, values in family.labels.items()
    )
