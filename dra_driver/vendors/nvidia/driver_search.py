"""The driver's part of every container, from the best that the host has.

First what nvidia-ctk says, or said at a former start of the same driver and itself. While it fails: what it said of the same
driver before, and at last our own search.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from dra_driver.model.edits import ContainerEdits
from dra_driver.model.errors import VendorError
from dra_driver.vendors.nvidia.driver_files import find_driver_files
from dra_driver.vendors.nvidia.driver_root import DriverRoot
from dra_driver.vendors.nvidia.toolkit import Toolkit, find_toolkit
from dra_driver.vendors.nvidia.toolkit_spec import ToolkitSpec

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What the edits are made of: as long as it is the same, so are they."""

    driver: str
    root: str
    toolkit: Toolkit | None


class DriverSearch:
    """Looks below `root`. `toolkit` is the nvidia-ctk that was configured; what it says is kept in the file `kept_in`."""

    def __init__(self, root: DriverRoot, *, kept_in: Path, toolkit: Path | None = None) -> None:
        self.root = root
        self._toolkit = toolkit
        self._kept_in = kept_in

    def origin(self, driver: str) -> Origin:
        """What a search for the files of that driver version would go by now."""
        toolkit = find_toolkit(self.root, self._toolkit)
        return Origin(driver=driver, root=str(self.root.path), toolkit=toolkit)

    def search(self, origin: Origin, *, toolkit_s: float) -> tuple[ContainerEdits, bool]:
        """The edits, and whether a later search could find better ones. nvidia-ctk may take that many seconds."""
        if origin.toolkit is None:
            return self._own(origin), False
        kept = self._read(origin)
        if kept is not None and kept == self._kept(origin, origin.toolkit, kept.spec):
            return kept.spec.common(), False
        try:
            return self._ask(origin, origin.toolkit, toolkit_s), False
        except VendorError as error:
            log.warning("nvidia-ctk does not help", why=str(error), driver=origin.driver)
        if kept is not None and kept.driver == origin.driver:
            return kept.spec.common(), True
        return self._own(origin), True

    def _own(self, origin: Origin) -> ContainerEdits:
        edits = find_driver_files(self.root, origin.driver)
        if not edits.mounts:
            log.warning(
                "no file of the driver was found: containers get device nodes alone; set nvidiaDriverRoot",
                driver=origin.driver,
                driver_root=origin.root,
            )
        return edits

    def _ask(self, origin: Origin, toolkit: Toolkit, deadline_s: float) -> ContainerEdits:
        spec = toolkit.generate(self.root, deadline_s=deadline_s)
        edits = spec.common()
        self._keep(self._kept(origin, toolkit, spec))
        return edits

    def _kept(self, origin: Origin, toolkit: Toolkit, spec: ToolkitSpec) -> _Kept:
        return _Kept(
            driver=origin.driver,
            driver_root=origin.root,
            toolkit=str(toolkit.path),
            toolkit_changed_ns=toolkit.changed_ns,
            spec=spec,
        )

    def _keep(self, kept: _Kept) -> None:
        draft = self._kept_in.with_suffix(".draft")
        try:
            draft.write_text(kept.model_dump_json(by_alias=True, exclude={"spec": {"devices"}}))
            draft.replace(self._kept_in)
        except OSError as error:
            log.warning("the next start asks nvidia-ctk again", why=str(error))

    def _read(self, origin: Origin) -> _Kept | None:
        """The file; None where there is none for that driver root, or one that cannot be read: it is only made anew then."""
        try:
            kept = _Kept.model_validate_json(self._kept_in.read_bytes())
            kept.spec.common()
        except (OSError, ValidationError, VendorError):
            return None
        return kept if kept.driver_root == origin.root else None


class _Kept(BaseModel):
    """The file: what nvidia-ctk said, and of what."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    driver: str
    driver_root: str
    toolkit: str
    toolkit_changed_ns: int
    spec: ToolkitSpec
