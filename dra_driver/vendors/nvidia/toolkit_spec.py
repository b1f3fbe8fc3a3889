"""What `nvidia-ctk cdi generate` prints, read strictly: a field that we do not know may matter, so its spec is refused by name.

Only the edits for every device are taken, which are the driver's files. Left out are the devices, as ours are claims' own; the
common device nodes, as ours are looked up when a claim is prepared (nvidia-uvm may be loaded late); and group ids, which
concern rendering nodes alone and would raise the spec to CDI 0.7.0, which older runtimes refuse.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from dra_driver.model.edits import ContainerEdits, Hook, Mount
from dra_driver.model.errors import NameInvalid, VendorError
from dra_driver.rules.container_edits import check_edits

_Variable: TypeAlias = Annotated[str, Field(pattern="=")]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True
    )


class _Mount(_Strict):
    host_path: str
    container_path: str
    options: tuple[str, ...] = Field(default=("ro", "nosuid", "nodev", "bind"), strict=False)
    type: Literal["", "bind"] = ""


class _Hook(_Strict):
    hook_name: str
    path: str
    args: tuple[str, ...] = Field(default=(), strict=False)
    env: tuple[_Variable, ...] = Field(default=(), strict=False)


class _Edits(_Strict):
    env: tuple[_Variable, ...] = Field(default=(), strict=False)
    mounts: tuple[_Mount, ...] = Field(default=(), strict=False)
    hooks: tuple[_Hook, ...] = Field(default=(), strict=False)
    device_nodes: tuple[Any, ...] = Field(default=(), strict=False)
    additional_gids: tuple[int, ...] = Field(default=(), strict=False)


class ToolkitSpec(_Strict):
    """The spec, in CDI's words."""

    cdi_version: str
    kind: str
    annotations: dict[str, str] = Field(default_factory=dict)
    devices: tuple[Any, ...] = Field(default=(), strict=False)
    container_edits: _Edits

    @classmethod
    def parse(cls, content: bytes) -> ToolkitSpec:
        """The spec that this JSON is; VendorError names the field that is not as it should be."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "output"
            raise VendorError(
                f"nvidia-ctk printed a CDI spec that this release cannot read: {place}: {first['msg']}"
            ) from error

    def common(self) -> ContainerEdits:
        """What every container needs, whatever its device; VendorError for what a runtime would refuse."""
        edits = self.container_edits
        found = ContainerEdits(
            env=tuple(map(_variable, edits.env)),
            mounts=tuple(
                Mount(host_path=m.host_path, container_path=m.container_path, options=m.options)
                for m in edits.mounts
            ),
            hooks=tuple(
                Hook(name=h.hook_name, path=h.path, args=h.args, env=tuple(map(_variable, h.env)))
                for h in edits.hooks
            ),
        )
        try:
            check_edits(found)
        except NameInvalid as error:
            raise VendorError(
                f"nvidia-ctk printed a CDI spec that no runtime takes: {error}"
            ) from error
        return found


def _variable(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value
