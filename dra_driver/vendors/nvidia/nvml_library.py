"""The whole of NVML that we use: its parts, over one initialisation."""

from __future__ import annotations

from typing import Protocol

from dra_driver.vendors.nvidia.nvml_health import DiagnosingNvml
from dra_driver.vendors.nvidia.users import SwitchingNvml


class NvmlLibrary(SwitchingNvml, DiagnosingNvml, Protocol):
    """What `NvidiaBackend` stands on; handles are good for all parts."""
