"""What was known of GPUs when vfio-pci got them: meanwhile their own driver knows nothing of them.

One file per GPU, written before it goes and removed when it is back, so that the process that finds it away after a crash
publishes the same devices and gives it back to the same driver.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from dra_driver.model.device import Gpu
from dra_driver.model.errors import VendorError


@dataclass(frozen=True)
class Handover:
    """A GPU as it was, and the drivers that its functions had: in the order in which they went, the GPU's last."""

    gpu: Gpu
    drivers: Mapping[str, str | None]


class Handovers:
    """The files in `folder`, which need not be there; those of another boot count for nothing. Raises VendorError."""

    def __init__(self, folder: Path, boot_id: str) -> None:
        self._folder = folder / boot_id

    def addresses(self) -> frozenset[str]:
        """The GPUs that are away, or on their way."""
        try:
            files = list(self._folder.iterdir())
        except FileNotFoundError:
            return frozenset()
        return frozenset(file.stem for file in files if file.suffix == ".json")

    def find(self, address: str) -> Handover | None:
        """What is known of that GPU; None where it did not go."""
        file = self._file(address)
        try:
            return self._adapter.validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise VendorError(
                f"GPU {address}: {file}, which says what it was before vfio-pci got it, cannot be read; "
                f"give the GPU back to its driver, then remove the file: {error}"
            ) from error

    def keep(self, handover: Handover) -> None:
        """It is found from now on, by every process: half of it never is."""
        file = self._file(handover.gpu.pci_address)
        whole = file.with_suffix(".new")
        with _changing(whole, "written"):
            self._folder.mkdir(parents=True, exist_ok=True)
            for boot in self._folder.parent.iterdir():
                if boot != self._folder:
                    shutil.rmtree(boot)
            whole.write_bytes(to_json(handover, fallback=dict))
            whole.replace(file)

    def forget(self, address: str) -> None:
        """It is back; one that did not go is fine."""
        file = self._file(address)
        with _changing(file, "removed"):
            file.unlink(missing_ok=True)

    @cached_property
    def _adapter(self) -> TypeAdapter[Handover]:
        """Made when it is needed: most nodes hand over nothing, and it takes milliseconds."""
        return TypeAdapter(Handover)

    def _file(self, address: str) -> Path:
        return self._folder / f"{address}.json"


@contextmanager
def _changing(file: Path, done: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VendorError(
            f"{file} cannot be {done}: {error.strerror}; see that dataDir has room and may be written",
            retryable=True,
        ) from error
