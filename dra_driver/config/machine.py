"""Machine profiles: YAML that describes a node's hardware, for simulation and for recording what real hardware is like."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from dra_driver.config.problems import explain
from dra_driver.config.strict_yaml import load_mapping
from dra_driver.model.device import Vendor
from dra_driver.model.errors import MachineError


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True
    )


class InstanceSpec(_Strict):
    """A partition that exists when the machine starts, made by somebody else than us."""

    profile: str
    start: Annotated[int, Field(ge=0)]


class GpuSpec(_Strict):
    """`count` equal GPUs. `model` is a name of the vendor's catalogue."""

    vendor: Annotated[Vendor, Field(strict=False)]
    model: str
    count: Annotated[int, Field(ge=1, le=16)] = 1
    mode: str | None = None
    instances: tuple[InstanceSpec, ...] = Field(default=(), strict=False)


class Machine(_Strict):
    """One node's hardware."""

    api_version: Literal["gpu.dra-driver.dev/v1alpha1"]
    kind: Literal["Machine"]
    name: str
    gpus: Annotated[tuple[GpuSpec, ...], Field(min_length=1, strict=False)]


def load_machine(source: str) -> Machine:
    """The machine of that name among those we ship, or the one described by the file at that path; MachineError."""
    if source.endswith(".yaml"):
        try:
            return _parse(Path(source).read_bytes(), source)
        except OSError as error:
            raise MachineError(
                f"machine profile {source} cannot be read: {error.strerror}; check the path"
            ) from error
    shipped = {
        entry.name.removesuffix(".yaml"): entry
        for entry in resources.files("dra_driver.machines").iterdir()
    }
    if source not in shipped:
        known = ", ".join(sorted(name for name in shipped if not name.startswith("__")))
        raise MachineError(
            f"machine {source!r} is not one of {known}; name one of them, or a .yaml file"
        )
    return _parse(shipped[source].read_bytes(), source)


def _parse(data: bytes, source: str) -> Machine:
    try:
        return Machine.model_validate(load_mapping(data), by_alias=True, by_name=False)
    except ValueError as error:
        problem = explain(error, Machine) if isinstance(error, ValidationError) else error
        raise MachineError(f"machine profile {source}: {problem}") from error
