"""Opaque parameters: understood to the last field, or refused by name."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from dra_driver.config.params import parse_gpu_config
from dra_driver.model.errors import ParametersError
from dra_driver.ports import JsonObject
from tests.fuzz.mutation import mutated

_HEAD = {"apiVersion": "gpu.dra-driver.dev/v1alpha1", "kind": "GpuConfig"}
VALID: tuple[JsonObject, ...] = (
    _HEAD,
    _HEAD | {"sharing": None},
    *(_HEAD | {"sharing": {"strategy": word}} for word in ("Exclusive", "TimeSlicing", "MPS")),
)
WHERE = "claim team/a"


def fuzz_parameters(inputs: Iterable[Random]) -> int:
    """Nothing but ParametersError, in one line; what is accepted says exactly what was written. Returns how many were."""
    accepted = 0
    for random in inputs:
        written = mutated(random, random.choice(VALID))
        if not isinstance(written, dict):
            continue  # the codec lets objects only come this far
        try:
            config = parse_gpu_config(written, WHERE)
        except ParametersError as error:
            message = str(error)
            assert message.startswith(f"{WHERE}: ")
            assert message.isprintable()
            assert len(message) < 1_000
        else:
            assert config.model_dump(by_alias=True, exclude_unset=True) == written
            accepted += 1
    return accepted
