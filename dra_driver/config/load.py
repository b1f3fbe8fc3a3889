"""What simulated hardware does: a small JSON object that people write while the simulation runs. What is not named is idle.

Its keys are PCI addresses of GPUs or UUIDs of MIG devices; a GPU in MIG mode adds up nothing by itself:

    {"0000:1b:00.0": {"sm": [0.9, 0.1], "step_s": 60, "memory_mib": 20480, "processes": [{"pid": 4242}]}}
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dra_driver.config.problems import explain, show
from dra_driver.config.strict_yaml import load_mapping

_MIG_UUID = re.compile(r"MIG-[0-9a-f-]+")
_Ratio: TypeAlias = Annotated[float, Field(ge=0, le=1)]
_Mebibytes: TypeAlias = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SimulatedProcess(_Strict):
    """A process that uses the device."""

    pid: Annotated[int, Field(ge=1, lt=2**31)]
    memory_mib: _Mebibytes = 0


class SimulatedLoad(_Strict):
    """One device's work: SM activity in steps of `step_s` that repeat for ever, counted from 1970; memory; processes."""

    sm: Annotated[tuple[_Ratio, ...], Field(strict=False, min_length=1)] = (0.0,)
    step_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    memory_mib: _Mebibytes = 0
    processes: tuple[SimulatedProcess, ...] = Field(default=(), strict=False)

    def sm_at(self, now_s: float) -> float:
        """The step of that moment."""
        return self.sm[int(now_s // self.step_s) % len(self.sm)]

    def sm_seconds(self, now_s: float) -> float:
        """The area below the curve until then, as a counter of the hardware would have it."""
        cycles, rest_s = divmod(now_s, self.step_s * len(self.sm))
        steps = math.floor(rest_s / self.step_s)
        begun_s = rest_s - steps * self.step_s
        whole = cycles * sum(self.sm) + sum(self.sm[:steps])
        return whole * self.step_s + self.sm[steps % len(self.sm)] * begun_s


def parse_loads(content: bytes, gpus: Collection[str]) -> Mapping[str, SimulatedLoad]:
    """The loads by device; ValueError naming the device, the value and what would be possible."""
    loads = {}
    for device, fields in load_mapping(content).items():
        if device not in gpus and not _MIG_UUID.fullmatch(device):
            known = ", ".join(sorted(gpus))
            raise ValueError(f"{show(device)} is not one of {known}, nor a MIG device's UUID")
        try:
            loads[device] = SimulatedLoad.model_validate(fields)
        except ValidationError as error:
            raise ValueError(f"{device}: {explain(error, SimulatedLoad)}") from error
    return loads
