"""Machine profiles: YAML that describes a node's hardware, for simulation and for recording what real hardware is like."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

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
    path = Path(source)
    shipped = resources.files("dra_driver.machines")
    if path.suffix != ".yaml":
        entry = shipped / f"{source}.yaml"
        if not entry.is_file():
            known = ", ".join(
                sorted(
                    e.name.removesuffix(".yaml")
                    for e in shipped.iterdir()
                    if e.name.endswith(".yaml")
                )
            )
            raise MachineError(
                f"machine {source!r} is not one of {known}; name one of them, or a .yaml file"
            )
        text = entry.read_text()
    else:
        try:
            text = path.read_text()
        except OSError as error:
            raise MachineError(
                f"machine profile {source} cannot be read: {error.strerror}; check the path"
            ) from error
    return _parse(text, source)


def _parse(text: str, source: str) -> Machine:
    try:
        return Machine.model_validate(yaml.load(text, Loader=yaml.CSafeLoader))
    except yaml.YAMLError as error:
        raise MachineError(f"machine profile {source} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MachineError(
            f"machine profile {source}: {where}: {first['msg']} (found {first['input']!r})"
        ) from error
