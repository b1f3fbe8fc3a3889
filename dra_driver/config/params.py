"""Opaque parameters: what a claim or a class may say to this driver about the devices it is given.

The API server keeps them unread (KEP-4381), so we are the first to look at them, on a node, for a pod that is starting:
whatever is not understood is refused there, never ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from dra_driver.config.problems import explain
from dra_driver.model.errors import ParametersError

SIZE_LIMIT_BYTES = 10 * 1024  # resource.k8s.io/v1: OpaqueParametersMaxLength

SharingStrategy: TypeAlias = Literal["Exclusive", "TimeSlicing", "MPS"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)


class SharingRequest(_Strict):
    """The kind of sharing that the claim counts on; a device of another kind is refused when the claim is prepared."""

    strategy: SharingStrategy


class GpuConfig(_Strict):
    """Parameters for devices of this driver. Without `sharing` any device will do."""

    api_version: Literal["gpu.dra-driver.dev/v1alpha1"]
    kind: Literal["GpuConfig"]
    sharing: SharingRequest | None = None


def parse_gpu_config(parameters: Mapping[str, Any], where: str) -> GpuConfig:
    """The parameters, understood to the last field; else ParametersError, which begins with `where` (`claim ns/name`)."""
    document = dict(parameters)
    size_bytes = _size_bytes(document, where)
    if size_bytes > SIZE_LIMIT_BYTES:
        raise ParametersError(
            f"{where}: parameters of {size_bytes} bytes; Kubernetes allows {SIZE_LIMIT_BYTES}, remove some"
        )
    try:
        return GpuConfig.model_validate(document)
    except ValidationError as error:
        raise ParametersError(f"{where}: parameters: {explain(error, GpuConfig)}") from error


def _size_bytes(document: dict[str, Any], where: str) -> int:
    try:
        return len(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())
    except RecursionError as error:
        raise ParametersError(
            f"{where}: parameters nested too deeply to be read; GpuConfig needs two levels"
        ) from error
    except UnicodeEncodeError as error:
        raise ParametersError(
            f"{where}: parameters hold {error.object[error.start]!r}, half a Unicode character; remove it"
        ) from error
