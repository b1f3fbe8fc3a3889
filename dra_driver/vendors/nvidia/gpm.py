"""GPU performance monitoring (GPM; Hopper and newer): averages between two samples of a device's counters, kept and freed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from dra_driver.vendors.nvidia.nvml import Code, Handle, NvmlError
from dra_driver.vendors.nvidia.nvml_activity import GpmMetric, NvmlActivity

T = TypeVar("T")

_GONE = frozenset(
    {
        Code.UNINITIALIZED,
        Code.DRIVER_NOT_LOADED,
        Code.TIMEOUT,
        Code.GPU_IS_LOST,
        Code.RESET_REQUIRED,
        Code.LIB_RM_VERSION_MISMATCH,
    }
)
"""The GPU or its driver does not answer. Any other code means that this one figure is not to be had here, or not now."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A sample of the GPU, or of its instance of that number."""

    sample: Handle
    instance: int | None


class GpmSampler:
    """Keeps one sample of each device, by its GPU's address and its UUID, until `close`."""

    def __init__(self, calls: NvmlActivity) -> None:
        self._calls = calls
        self._samples: dict[str, dict[str, _Kept]] = {}
        self._has_gpm: dict[str, bool] = {}

    def since_last(
        self, pci_address: str, uuid: str, gpu: Handle, instance: int | None = None
    ) -> Mapping[GpmMetric, float]:
        """What was counted since the last call for that UUID, of the GPU or of its instance of that number.

        Nothing the first time, and where there is no GPM.
        """
        if not self._is_sampled(pci_address, gpu):
            return {}
        kept = self._samples.setdefault(pci_address, {})
        later = if_measured(partial(self._calls.gpm_sample, gpu, instance))
        earlier = kept.pop(uuid, None)
        try:
            if earlier is None or later is None:
                return {}
            return if_measured(partial(self._calls.gpm_percentages, earlier.sample, later)) or {}
        finally:
            if later is not None:
                kept[uuid] = _Kept(later, instance)
            if earlier is not None:
                self._give_back(earlier.sample)

    def free(self, pci_address: str, *, but: Iterable[str] = ()) -> None:
        """The GPU's samples are given back, except those of these UUIDs."""
        kept = self._samples.get(pci_address, {})
        for uuid in kept.keys() - set(but):
            self._give_back(kept.pop(uuid).sample)

    def free_instance(self, pci_address: str, instance: int) -> None:
        """Nothing of ours is left in that GPU instance."""
        kept = self._samples.get(pci_address, {})
        self.free(pci_address, but=[uuid for uuid, one in kept.items() if one.instance != instance])

    def close(self, pci_address: str) -> None:
        """Nothing is known of the GPU any more."""
        self.free(pci_address)
        self._has_gpm.pop(pci_address, None)

    def _is_sampled(self, pci_address: str, gpu: Handle) -> bool:
        """Whether the GPU has GPM: it is asked until it has said so, and then believed."""
        if pci_address not in self._has_gpm:
            answer = if_measured(partial(self._calls.has_gpm, gpu))
            if answer is None:
                return False
            self._has_gpm[pci_address] = answer
        return self._has_gpm[pci_address]

    def _give_back(self, sample: Handle) -> None:
        with suppress(NvmlError):  # a driver that is going takes it along
            self._calls.gpm_free(sample)


def if_measured(ask: Callable[[], T]) -> T | None:
    """The answer, or None where this one figure is not to be had; NvmlError where the GPU does not answer at all."""
    try:
        return ask()
    except NvmlError as error:
        if error.code in _GONE:
            raise
        return None
