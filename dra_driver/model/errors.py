"""Every error this project raises on purpose.

    DraError
    ├── InputError              somebody wrote something wrong: it stays wrong until it is changed
    │   ├── QuantityError       not a Kubernetes quantity
    │   ├── NameInvalid         a name that Kubernetes or CDI would refuse
    │   ├── ParametersError     opaque parameters of a claim or a class
    │   ├── SettingsError       a settings file, flag or environment variable
    │   └── MachineError        a machine profile
    ├── ClaimError              a claim that cannot be served as it stands
    │   ├── ClaimReplaced       same name, another UID
    │   ├── ClaimReleased       unprepared a moment ago, and nothing changed since: a late call
    │   └── DeviceHeld          another claim still holds the device; waiting may help
    ├── VendorError             the driver library refused or failed; `retryable` says whether to try again
    ├── RecordError             a claim's journal is damaged
    │   ├── RecordNewer         it is whole, but of a format that only a newer release reads
    │   ├── RecordOutdated      it is whole, but of a former boot
    │   └── StorageError        its disk refuses: full, read-only, failing
    ├── StartError              a process cannot start: socket, lock, directory
    ├── KubeletUnavailable      the kubelet does not answer a question of ours
    └── KubeError               the API server answered with an error, or not at all
        ├── NotFound, Conflict, Forbidden, Invalid, Gone
        ├── FieldsDropped       it stored less than it was sent
        ├── SliceNameTaken      a slice's name is another's
        └── Unavailable         no answer, 429 or 5xx; trying again may help

Each message names the object, the value and the fix. `reason` is the word of `reasons.REASONS`, `retryable` says whether the
same call may succeed later: nobody else decides.
"""

from __future__ import annotations

from dra_driver.model.reasons import Reason


def root_cause(error: BaseException) -> BaseException:
    """The first error inside a task group's nested groups: what a user is told when everything ended because of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class DraError(Exception):
    """The root: everything else is a bug."""

    reason: str = Reason.INTERNAL_ERROR
    retryable = False


class InputError(DraError):
    """Somebody wrote something wrong."""

    reason = Reason.INVALID_INPUT


class QuantityError(InputError):
    """Not a Kubernetes quantity."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"quantity {text!r} is not a number with an optional suffix: write it like 80Gi, 500m or 2"
        )


class NameInvalid(InputError):
    """A name that Kubernetes or CDI would refuse."""


class ParametersError(InputError):
    """Opaque parameters of a claim or a class that we refuse."""

    reason = Reason.INVALID_PARAMETERS


class SettingsError(InputError):
    """A settings file, flag or environment variable that we refuse."""


class MachineError(InputError):
    """A machine profile that describes no possible machine."""


class ClaimError(DraError):
    """A claim that cannot be served as it stands."""

    reason = Reason.CLAIM_NOT_SERVABLE


class ClaimReplaced(ClaimError):
    """The claim of this name has another UID by now."""

    reason = Reason.CLAIM_REPLACED


class ClaimReleased(ClaimError):
    """The claim was unprepared, and is still as it was then: the call is late, or its next user is not written down yet."""

    reason = Reason.CLAIM_RELEASED
    retryable = True


class DeviceHeld(ClaimError):
    """Another claim, with the UID `holder`, still holds the device, or one that shares hardware with it."""

    reason = Reason.DEVICE_HELD
    retryable = True

    def __init__(self, message: str, *, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


class VendorError(DraError):
    """The vendor's library refused or failed. `refused`: it is sure that what was asked has changed nothing and never will."""

    reason = Reason.HARDWARE_ERROR

    def __init__(self, message: str, *, retryable: bool = False, refused: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.refused = refused


class RecordError(DraError):
    """A claim's journal cannot be read or written; the claim is refused, the others go on."""

    reason = Reason.RECORD_DAMAGED


class RecordNewer(RecordError):
    """A newer release wrote the record in a format that this one does not read; it is left as it is."""

    reason = Reason.RECORD_NEWER


class RecordOutdated(RecordError):
    """It speaks of a former boot; nothing of that is left."""


class StorageError(RecordError):
    """A claim's record or CDI file cannot be written, read or removed now: a full disk, a read-only or failing one."""

    reason = Reason.STORAGE_FAILED
    retryable = True


class StartError(DraError):
    """A process cannot start."""

    reason = Reason.START_FAILED


class KubeletUnavailable(DraError):
    """The kubelet does not answer a question of ours."""

    reason = Reason.KUBELET_UNAVAILABLE
    retryable = True


class KubeError(DraError):
    """The API server refused. `status` is the HTTP code, 0 where there was no answer."""

    reason = Reason.API_ERROR

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NotFound(KubeError):
    """404."""


class Conflict(KubeError):
    """409: the object exists already, or has changed since it was read."""


class Forbidden(KubeError):
    """401 or 403."""

    reason = Reason.API_FORBIDDEN


class Invalid(KubeError):
    """400 or 422."""


class Gone(KubeError):
    """410: the resource version is too old; list again."""


class FieldsDropped(KubeError):
    """The API server stored less of a slice than it was sent: a feature gate is off."""

    reason = Reason.FIELDS_DROPPED

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the API server stored slice {name} without some of its fields, so partitions cannot be told apart; "
            "turn on the feature gates DRAPartitionableDevices and DRADeviceTaints"
        )


class SliceNameTaken(KubeError):
    """A slice cannot be created, as an object that is not ours has its name."""

    reason = Reason.SLICE_NAME_TAKEN

    def __init__(self, name: str, *, driver: str, node: str | None) -> None:
        super().__init__(
            f"slice {name} belongs to driver {driver} on {f'node {node}' if node else 'no node'}, so ours cannot be created; "
            f"delete it: kubectl delete resourceslice {name}",
            status=409,
        )


class Unavailable(KubeError):
    """No answer, 429 or 5xx."""

    reason = Reason.API_UNAVAILABLE
    retryable = True

    def __init__(
        self, message: str, *, status: int = 0, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, status=status)
        self.retry_after_s = retry_after_s
