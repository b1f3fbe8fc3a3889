"""Every word by which the node plugin says why: one closed list for the kubelet's error texts, Events, metrics and logs.

A reason is the same CamelCase word in all four, so that what is seen in one can be searched for in the others. Here is said, once for
each, what an Event with it is about, and whether the same call may succeed later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Literal


class Reason(StrEnum):
    """The word."""

    INTERNAL_ERROR = "InternalError"
    INVALID_INPUT = "InvalidInput"
    INVALID_PARAMETERS = "InvalidParameters"
    CLAIM_NOT_SERVABLE = "ClaimNotServable"
    CLAIM_REPLACED = "ClaimReplaced"
    CLAIM_RELEASED = "ClaimReleased"
    DEVICE_HELD = "DeviceHeld"
    HARDWARE_ERROR = "HardwareError"
    RECORD_DAMAGED = "RecordDamaged"
    RECORD_NEWER = "RecordNewer"
    STORAGE_FAILED = "StorageFailed"
    RECORD_REBUILT = "RecordRebuilt"
    API_ERROR = "ApiError"
    API_FORBIDDEN = "ApiForbidden"
    API_UNAVAILABLE = "ApiUnavailable"
    START_FAILED = "StartFailed"
    KUBELET_UNAVAILABLE = "KubeletUnavailable"
    SLICE_NAME_TAKEN = "SliceNameTaken"
    FIELDS_DROPPED = "FieldsDropped"
    PARTITIONS_NOT_PUBLISHED = "PartitionsNotPublished"
    ANOTHER_DRIVER_OFFERS = "AnotherDriverOffers"
    GPU_UNHEALTHY = "GpuUnhealthy"
    GPU_RECOVERED = "GpuRecovered"
    FOREIGN_PARTITIONS = "ForeignPartitions"

    @classmethod
    def of(cls, word: str) -> Reason:
        """The reason of that name; InternalError for a word that is none."""
        return next((reason for reason in cls if reason == word), cls.INTERNAL_ERROR)


class Regarding(StrEnum):
    """What an Event is written on. On pods the kubelet itself repeats what we answer about their claims."""

    CLAIM = "claim"
    NODE = "node"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is fixed about a reason. `retryable` None: each error of it says so itself."""

    regarding: Regarding
    level: Literal["Normal", "Warning"] = "Warning"
    retryable: bool | None = False
    meaning: str


REASONS: Mapping[Reason, Entry] = MappingProxyType(
    {
        Reason.INTERNAL_ERROR: Entry(
            regarding=Regarding.CLAIM,
            meaning="a bug; the plugin's log has the traceback under the same `op`",
        ),
        Reason.INVALID_INPUT: Entry(
            regarding=Regarding.CLAIM,
            meaning="a name, a quantity or a setting that cannot be; the message shows how to write it",
        ),
        Reason.INVALID_PARAMETERS: Entry(
            regarding=Regarding.CLAIM,
            meaning="the opaque parameters of the claim or of its class are refused; the message names the field",
        ),
        Reason.CLAIM_NOT_SERVABLE: Entry(
            regarding=Regarding.CLAIM,
            meaning="the device is not on this node (any more), or was changed by somebody else: delete the pod",
        ),
        Reason.CLAIM_REPLACED: Entry(
            regarding=Regarding.CLAIM,
            meaning="the claim was deleted and made again meanwhile; the kubelet asks again by itself",
        ),
        Reason.CLAIM_RELEASED: Entry(
            regarding=Regarding.CLAIM,
            retryable=True,
            meaning="a call that came after the claim was unprepared, with no new user written into the claim since",
        ),
        Reason.DEVICE_HELD: Entry(
            regarding=Regarding.CLAIM,
            retryable=True,
            meaning="another claim, named in the message, still holds the device or one that overlaps it",
        ),
        Reason.HARDWARE_ERROR: Entry(
            regarding=Regarding.CLAIM,
            retryable=None,
            meaning="the vendor's library refused or did not answer; the message has its words",
        ),
        Reason.RECORD_DAMAGED: Entry(
            regarding=Regarding.CLAIM,
            meaning="the claim's record makes no sense and nothing else is known of it; its file and what to do are in the message",
        ),
        Reason.RECORD_NEWER: Entry(
            regarding=Regarding.CLAIM,
            meaning="a newer release wrote the claim's record; it is left alone, and only that release can end the claim",
        ),
        Reason.STORAGE_FAILED: Entry(
            regarding=Regarding.CLAIM,
            retryable=True,
            meaning="a claim's record or CDI file cannot be written or read now: path and fix (space, rights, mount) are in the message",
        ),
        Reason.RECORD_REBUILT: Entry(
            regarding=Regarding.CLAIM,
            meaning="the claim's record was damaged and has been written anew; the damaged file is kept, its path is in the message",
        ),
        Reason.API_ERROR: Entry(
            regarding=Regarding.CLAIM,
            meaning="the API server refused a request; the message has its words",
        ),
        Reason.API_FORBIDDEN: Entry(
            regarding=Regarding.CLAIM,
            meaning="the plugin lacks a right: compare with `dra doctor`",
        ),
        Reason.API_UNAVAILABLE: Entry(
            regarding=Regarding.CLAIM,
            retryable=True,
            meaning="the API server did not answer, or asked to come back later",
        ),
        Reason.START_FAILED: Entry(
            regarding=Regarding.NOTHING,
            meaning="the plugin cannot start; it says so on stderr and ends with exit code 1",
        ),
        Reason.KUBELET_UNAVAILABLE: Entry(
            regarding=Regarding.NOTHING,
            retryable=True,
            meaning="the kubelet does not say which claims its pods use, so nothing that looks abandoned is released",
        ),
        Reason.SLICE_NAME_TAKEN: Entry(
            regarding=Regarding.NODE,
            meaning="an object that is not ours has the name of one of our slices; the message says how to delete it",
        ),
        Reason.FIELDS_DROPPED: Entry(
            regarding=Regarding.NODE,
            meaning="the API server stored less than it was sent, so that no partitions are published any more",
        ),
        Reason.ANOTHER_DRIVER_OFFERS: Entry(
            regarding=Regarding.NODE,
            meaning="a device plugin or another DRA driver offers the same GPUs, or the MIG manager is changing them, so they are not published; the message names both",
        ),
        Reason.GPU_UNHEALTHY: Entry(
            regarding=Regarding.NODE,
            meaning="a GPU that answers is degraded or broken; the message says what is wrong, what to do, and whether new claims get it",
        ),
        Reason.GPU_RECOVERED: Entry(
            regarding=Regarding.NODE,
            level="Normal",
            meaning="what was wrong with a GPU is over; its devices bear no taint of it any more",
        ),
        Reason.FOREIGN_PARTITIONS: Entry(
            regarding=Regarding.NODE,
            meaning="somebody else partitioned a GPU: their partitions are given out as they are, and nothing that overlaps them",
        ),
        Reason.PARTITIONS_NOT_PUBLISHED: Entry(
            regarding=Regarding.NODE,
            meaning="the API server does not keep counters, so that partitions are not published",
        ),
    }
)


def event_table(reasons: Iterable[Reason] = tuple(Reason)) -> str:
    """The reasons as rows of the page on Events."""
    rows = ("| reason | Event on | level | tried again | meaning |", "|---|---|---|---|---|")
    return "\n".join((*rows, *map(_row, reasons))) + "\n"


def _row(reason: Reason) -> str:
    entry = REASONS[reason]
    again = {True: "yes", False: "no", None: "the message says"}[entry.retryable]
    where = "-" if entry.regarding is Regarding.NOTHING else entry.regarding
    return f"| `{reason}` | {where} | {entry.level} | {again} | {entry.meaning} |"
