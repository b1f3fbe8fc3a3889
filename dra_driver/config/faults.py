"""What is wrong with simulated hardware: a small JSON object that people write while the simulation runs.

Its keys are PCI addresses, `driver` for the driver of them all, or UUIDs of MIG devices, which can only be busy:

    {"0000:1b:00.0": {"error": "GPU_IS_LOST"}, "0000:43:00.0": {"hang_s": 3600, "calls": ["create_gpu_instance"]}}
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dra_driver.config.problems import explain, show
from dra_driver.config.strict_yaml import load_mapping

DRIVER = "driver"

_MIG_UUID = re.compile(r"MIG-[0-9a-f-]+")
_ONE_DAY_S = 86_400
_Seconds: TypeAlias = Annotated[float, Field(ge=0, le=_ONE_DAY_S)]


class SimulatedXid(BaseModel):
    """An XID that the driver reports once, when it appears in the file; `instance` is the id of the GPU instance that it is about."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    xid: Annotated[int, Field(ge=1)]
    instance: int | None = None


class SimulatedFault(BaseModel):
    """What is wrong with one GPU, or with the driver; what is said together holds together.

    `calls` limits `error`, `delay_s`, `hang_s` and `kill` to these calls; without it they concern every call. A call
    that hangs goes on as soon as the file does not say so any more. `xids`, `fields` (None: not offered), `hot` and `links_down`
    are what the GPU tells of its health.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    absent: bool = False
    error: str | None = None
    delay_s: _Seconds = 0.0
    hang_s: _Seconds = 0.0
    kill: Literal["before", "after"] | None = None
    busy: bool = False
    users: Annotated[tuple[str, ...], Field(strict=False)] = ()
    version: str | None = None
    calls: Annotated[tuple[str, ...], Field(strict=False)] = ()
    xids: Annotated[tuple[SimulatedXid, ...], Field(strict=False)] = ()
    fields: Mapping[str, int | None] = Field(default_factory=dict)
    hot: bool = False
    links_down: Annotated[int, Field(ge=0)] = 0

    def concerns(self, call: str) -> bool:
        """Whether that call is one of those that have the fault."""
        return not self.calls or call in self.calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What a vendor's faults can be about: its GPUs' PCI addresses, its library's calls, errors and fields."""

    gpus: Collection[str]
    calls: Collection[str]
    errors: Collection[str]
    fields: Collection[str] = ()


def parse_faults(content: bytes, words: Vocabulary) -> Mapping[str, SimulatedFault]:
    """The faults by device; ValueError naming the device, the value and what would be possible."""
    faults = {}
    for device, fields in load_mapping(content).items():
        is_mig = _MIG_UUID.fullmatch(device) is not None
        _refuse_unknown("", [] if is_mig else [device], {*words.gpus, DRIVER})
        fault = _parse_fault(device, fields)
        _refuse_unknown(f"{device}: calls: ", fault.calls, words.calls)
        _refuse_unknown(f"{device}: error: ", [fault.error] if fault.error else [], words.errors)
        _refuse_unknown(f"{device}: fields: ", fault.fields, words.fields)
        if fault.version and device != DRIVER:
            raise ValueError(f"{device}: version: only {DRIVER!r} has one; write it there")
        if is_mig and fault.model_fields_set - {"busy"}:
            raise ValueError(f"{device}: a MIG device can only be busy; break its GPU instead")
        faults[device] = fault
    return faults


def _parse_fault(device: str, fields: object) -> SimulatedFault:
    if not isinstance(fields, dict):
        raise ValueError(f"{device}: {show(fields)} is not an object; write {{}} around its faults")  # noqa: TRY004
    try:
        return SimulatedFault.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"{device}: {explain(error, SimulatedFault)}") from error


def _refuse_unknown(place: str, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{place}{show(name)} is not one of {', '.join(sorted(known))}")
