"""How calls of the simulated NVML meet the faults of its GPUs and its driver."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dra_driver.config.faults import DRIVER, Vocabulary
from dra_driver.vendors.fault_file import FaultFile
from dra_driver.vendors.nvidia.nvml import Code, Nvml, NvmlError
from dra_driver.vendors.nvidia.nvml_activity import NvmlActivity
from dra_driver.vendors.nvidia.nvml_health import Field, NvmlHealth

_FAULTLESS = frozenset({"close", "pci_place"})
"""Not calls of the library: the one gives it back, the other asks the kernel."""

_OF_NO_GPU = frozenset({"driver_version", "cuda_version", "pci_addresses", "capability_minor"})
CALLS = (
    frozenset(
        name for part in (Nvml, NvmlHealth) for name in vars(part) if not name.startswith("_")
    )
    - _FAULTLESS
)
ACTIVITY_CALLS = frozenset(name for name in vars(NvmlActivity) if not name.startswith("_"))


class Faulty(Protocol):
    """An NVML with faults; `address` says of which GPU a handle, or an address, is."""

    faults: FaultFile

    def address(self, handle: Any) -> str:
        """The GPU's PCI address."""


F = TypeVar("F", bound=Faulty)


def open_faults(folder: Path, gpus: tuple[str, ...]) -> FaultFile:
    """The faults of these GPUs, from `faults.json` in the folder."""
    errors = [code.name for code in Code if code is not Code.SUCCESS]
    fields = [field.name for field in Field]
    words = Vocabulary(gpus=gpus, calls=CALLS | ACTIVITY_CALLS, errors=errors, fields=fields)
    return FaultFile(folder / "faults.json", words)


def meets_faults(nvml: type[F]) -> type[F]:
    """The class, each of whose calls meets the driver's fault and then the fault of the GPU that it is about."""
    for name in (CALLS | ACTIVITY_CALLS) & vars(nvml).keys():
        setattr(nvml, name, _meeting(getattr(nvml, name)))
    return nvml


def _meeting(method: Callable[..., Any]) -> Callable[..., Any]:
    call = method.__name__

    @wraps(method)
    def meeting(nvml: Faulty, *arguments: Any) -> Any:
        if not nvml.faults.any():
            return method(nvml, *arguments)
        with ExitStack() as stack:
            stack.enter_context(nvml.faults.around(DRIVER, call, _driver_refuses))
            if call not in _OF_NO_GPU:
                address = nvml.address(arguments[0])
                refuses = _no_gpu_there if call == "gpu_by_address" else _gpu_refuses
                stack.enter_context(nvml.faults.around(address, call, refuses))
            return method(nvml, *arguments)

    return meeting


def _driver_refuses(error: str | None) -> NvmlError:
    return NvmlError(Code[error] if error else Code.DRIVER_NOT_LOADED, "simulated NVML")


def _gpu_refuses(error: str | None) -> NvmlError:
    return NvmlError(Code[error] if error else Code.GPU_IS_LOST, "simulated NVML")


def _no_gpu_there(error: str | None) -> NvmlError:
    return NvmlError(Code[error] if error else Code.NOT_FOUND, "simulated NVML")
