"""The calls of NVML about health, through the binding that `sdk` loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dra_driver.vendors.nvidia.nvml import Code, Handle, NvmlError
from dra_driver.vendors.nvidia.nvml_health import Field, XidEvent
from dra_driver.vendors.nvidia.session import Session

_LINK_STATE, _LINKS = 165, range(18)
"""`NVML_FI_DEV_NVLINK_GET_STATE`, asked for each link as its scope."""
_LINK_DOWN = 0
_NO_LINK = frozenset({Code.NOT_SUPPORTED, Code.INVALID_ARGUMENT, Code.FUNCTION_NOT_FOUND})
_XID_EVENT = 0x8
"""`nvmlEventTypeXidCriticalError`."""
_NO_INSTANCE = 0xFFFFFFFF
_NOT_TOLD = frozenset({Code.SUCCESS, Code.NO_PERMISSION, *_NO_LINK})
"""What a field may say without anything being wrong: anything else is no data, and no data is not health."""
_MEMBERS = {1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
"""Where a whole number stands in an `nvmlValue_t`, by `nvmlValueType_t`."""


class PynvmlHealth:
    """Implements `NvmlHealth`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._call = session.call

    def field_values(self, gpu: Handle, fields: Sequence[Field]) -> Mapping[Field, int]:
        """See NvmlHealth. Each field of the answer has a return code of its own, also where the GPU cannot be reached."""
        values = self._call("DeviceGetFieldValues", gpu, [int(field) for field in fields])
        for value in values:
            if value.nvmlReturn not in _NOT_TOLD:
                raise NvmlError(value.nvmlReturn, "nvmlDeviceGetFieldValues")
        return {
            field: _whole_number(value)
            for field, value in zip(fields, values, strict=True)
            if value.nvmlReturn == Code.SUCCESS
        }

    def active_links(self, gpu: Handle) -> int:
        """See NvmlHealth. All at once from Hopper on; GPUs before it do not have the field."""
        asked = [(_LINK_STATE, link) for link in _LINKS]
        values = self._call("DeviceGetFieldValues", gpu, asked)
        states = [_whole_number(value) for value in values if value.nvmlReturn == Code.SUCCESS]
        states = states or list(self._states_one_by_one(gpu))
        if not states:
            raise NvmlError(Code.NOT_SUPPORTED, "states of NVLinks")
        return sum(state != _LINK_DOWN for state in states)

    def open_events(self, gpu: Handle) -> Handle:
        """See NvmlHealth. Whatever the GPU does not support cannot be registered for."""
        if not self._call("DeviceGetSupportedEventTypes", gpu) & _XID_EVENT:
            raise NvmlError(Code.NOT_SUPPORTED, "events about XIDs")
        events = self._session.borrow("EventSetCreate", give_back="EventSetFree")
        try:
            self._call("DeviceRegisterEvents", gpu, _XID_EVENT, events)
        except NvmlError:
            self.close_events(events)
            raise
        return events

    def next_event(self, events: Handle) -> XidEvent | None:
        """See NvmlHealth. Without a time to wait, NVML says TIMEOUT where it has nothing."""
        try:
            data = self._call("EventSetWait_v2", events, 0)
        except NvmlError as error:
            if error.code == Code.TIMEOUT:
                return None
            raise
        instance = None if data.gpuInstanceId == _NO_INSTANCE else int(data.gpuInstanceId)
        return XidEvent(xid=int(data.eventData), instance=instance)

    def close_events(self, events: Handle) -> None:
        """See NvmlHealth."""
        self._session.give_back(events)

    def _states_one_by_one(self, gpu: Handle) -> Iterator[int]:
        for link in _LINKS:
            try:
                yield int(self._call("DeviceGetNvLinkState", gpu, link))
            except NvmlError as error:
                if error.code not in _NO_LINK:
                    raise
                return


def _whole_number(value: Any) -> int:
    return int(getattr(value.value, _MEMBERS.get(value.valueType, "ullVal")))
