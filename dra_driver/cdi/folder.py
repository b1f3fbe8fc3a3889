"""The folder that container runtimes watch for CDI specs: one file per claim, and one for each set of edits that they share.

A file is written under a hidden name in the same folder and renamed over. Anything else stays unseen: runtimes react to a
rename within the folder, and to no rename from elsewhere. Nothing is synced: a replay writes the file again.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dra_driver.cdi.spec import NOTE_ANNOTATION, claim_spec, shared_spec
from dra_driver.model.edits import ContainerEdits, SharedEdits
from dra_driver.model.errors import StorageError
from dra_driver.model.names import (
    CDI_KIND,
    CLAIM_UID,
    DRIVER_NAME,
    SHARED_CDI_KIND,
    checked_claim_uid,
    shared_cdi_id,
)
from dra_driver.ports import JsonObject

_PREFIX = f"{CDI_KIND.replace('/', '-')}_"
_SHARED_PREFIX = f"{SHARED_CDI_KIND.replace('/', '-')}_"
_LATELY_S = 3600.0
_FILE = re.compile(rf"{re.escape(_PREFIX)}(?P<uid>{CLAIM_UID.pattern})\.json")


class CdiFolder:
    """The claims' CDI files (a CdiStore). Other files of the folder are never touched."""

    def __init__(self, folder: Path) -> None:
        """Removes what a killed write left behind; a folder that cannot be cleaned now is no reason not to start."""
        self._folder = folder
        with suppress(OSError):
            for draft in folder.glob(f".{DRIVER_NAME}-*.draft"):
                draft.unlink(missing_ok=True)

    def write(
        self, uid: str, devices: Sequence[tuple[str, ContainerEdits]], note: str = ""
    ) -> None:
        """Runtimes see exactly these devices when this returns; NameInvalid for what a runtime would refuse."""
        self._write(self._path(uid), claim_spec(devices, note))

    def holds(
        self, uid: str, devices: Sequence[tuple[str, ContainerEdits]], note: str = ""
    ) -> bool:
        """Whether the file's content, however it is laid out, is what `write` would write."""
        return bool(self._content(uid) == claim_spec(devices, note))

    def note(self, uid: str) -> str | None:
        """The note that the claim's file was written with; None where there is no file, or none that can be understood."""
        spec = self._content(uid)
        annotations = spec.get("annotations") if isinstance(spec, dict) else None
        note = annotations.get(NOTE_ANNOTATION) if isinstance(annotations, dict) else None
        return note if isinstance(note, str) else None

    def remove(self, uid: str) -> None:
        """The claim has no file any more; no file is fine."""
        path = self._path(uid)
        with _naming(path, "remove"):
            path.unlink(missing_ok=True)

    def claims(self) -> frozenset[str]:
        """UIDs of all claims that have a file; files of others are not seen."""
        with _naming(self._folder, "list"):
            try:
                names = [path.name for path in self._folder.iterdir()]
            except FileNotFoundError:
                return frozenset()
        matches = (_FILE.fullmatch(name) for name in names)
        return frozenset(match["uid"] for match in matches if match)

    def share(self, shared: SharedEdits) -> None:
        """Runtimes see these edits when this returns; a file that is there says the same, as its name comes from its content.

        It is touched, so that no process which starts now takes it for an old one (`sweep`).
        """
        path = self._shared_path(shared.name)
        with _naming(path, "touch"):
            try:
                os.utime(path)
            except FileNotFoundError:
                self._write(path, shared_spec(shared))

    def shares(self, cdi_id: str) -> bool:
        """Whether there is a file for the edits with that CDI id."""
        return self._shared_path(cdi_id.removeprefix(shared_cdi_id(""))).exists()

    def sweep(self, used: Collection[str]) -> None:
        """Remove the files of shared edits that nobody uses and nobody shared in the last hour, as far as they can be removed."""
        lately_s = time.time() - _LATELY_S
        with suppress(OSError):
            for path in self._folder.glob(f"{_SHARED_PREFIX}*.json"):
                name = path.name.removeprefix(_SHARED_PREFIX).removesuffix(".json")
                if shared_cdi_id(name) not in used and path.stat().st_mtime < lately_s:
                    path.unlink(missing_ok=True)

    def _write(self, path: Path, spec: JsonObject) -> None:
        content = json.dumps(spec, separators=(",", ":")).encode("ascii")
        with _naming(path, "write"):
            try:
                _put(path, content)
            except (
                FileNotFoundError
            ):  # no folder yet, or a process that starts took the draft for a dead one's
                self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
                _put(path, content)

    def _content(self, uid: str) -> Any:
        """The JSON in the claim's file, None where there is none."""
        path = self._path(uid)
        with _naming(path, "read"):
            try:
                return json.loads(path.read_bytes())
            except (FileNotFoundError, ValueError, RecursionError):
                return None

    def _path(self, uid: str) -> Path:
        return self._folder / f"{_PREFIX}{checked_claim_uid(uid)}.json"

    def _shared_path(self, name: str) -> Path:
        return self._folder / f"{_SHARED_PREFIX}{name}.json"


def _put(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.stem}.draft")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def _naming(path: Path, verb: str) -> Iterator[None]:
    """Failures inside become StorageErrors that name the file and the fix."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot {verb} CDI file {path}: {error.strerror};"
            " the CDI folder must be writable and have space"
        ) from error
