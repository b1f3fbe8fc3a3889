"""What can be seen of a node without asking its plugin: its files, its hardware, and what the API server has of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dra_driver.journal.store import ClaimJournal, read_boot_id
from dra_driver.model.device import Gpu
from dra_driver.model.errors import RecordError
from dra_driver.model.inventory import Inventory
from dra_driver.model.record import ClaimRecord
from dra_driver.ports import Backend, JsonObject
from dra_driver.vendors.discovery import discover

_CDI_PREFIX = "gpu.dra-driver.dev-claim_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """One look. `journal` has what is written of each claim's file; `cdi` the ids that each claim's CDI file resolves.

    `damaged` are claims whose record cannot be read or was set aside; `litter` is every file that is nobody's. `slices` is None
    where nobody looked at the API server, and `allocations` has what each claim that it knows was allocated.
    """

    node: str
    records: Mapping[str, ClaimRecord] = field(default_factory=dict)
    journal: Mapping[str, bytes] = field(default_factory=dict)
    damaged: frozenset[str] = frozenset()
    cdi: Mapping[str, frozenset[str]] = field(default_factory=dict)
    litter: tuple[str, ...] = ()
    inventory: Inventory
    slices: tuple[JsonObject, ...] | None = None
    allocations: Mapping[str, frozenset[tuple[str, str]]] = field(default_factory=dict)

    def gpu(self, address: str) -> Gpu | None:
        """The GPU as it is now."""
        return self.inventory.gpu(address)


class Folders(Protocol):
    """Where a node keeps its state."""

    node: str
    data_dir: Path
    cdi_dir: Path
    backend: Backend


def look(
    node: Folders,
    *,
    claims: Iterable[JsonObject] = (),
    slices: Iterable[JsonObject] | None = None,
) -> Outside:
    """What is there now; for moments in which nobody is changing it."""
    records, journal, damaged, litter = _journal(node.data_dir / "claims")
    cdi, more_litter = _cdi(node.cdi_dir)
    return Outside(
        node=node.node,
        records=records,
        journal=journal,
        damaged=frozenset(damaged),
        cdi=cdi,
        litter=(*litter, *more_litter),
        inventory=discover(node.backend),
        slices=None if slices is None else tuple(slices),
        allocations={one["metadata"]["uid"]: _allocated(one) for one in claims},
    )


def _journal(
    folder: Path,
) -> tuple[dict[str, ClaimRecord], dict[str, bytes], set[str], list[str]]:
    boot = folder / read_boot_id()
    store = ClaimJournal(folder, boot_id=boot.name)
    records: dict[str, ClaimRecord] = {}
    journal: dict[str, bytes] = {}
    damaged: set[str] = set()
    litter = [str(path) for path in _children(folder) if path != boot]
    for path in _children(boot):
        if path.suffix == ".jsonl":
            with suppress(FileNotFoundError):  # it is being removed at this moment
                journal[path.stem] = path.read_bytes().rstrip(b"\0")
                try:
                    record = store.read(path.stem)
                except RecordError:
                    damaged.add(path.stem)
                else:
                    records |= {path.stem: record} if record else {}
        elif path.name == "quarantine":
            set_aside = [one for one in _children(path) if one.suffix != ".settled"]
            damaged |= {one.name.partition(".")[0] for one in set_aside} - records.keys()
        else:
            litter.append(str(path))
    return records, journal, damaged, litter


def _cdi(folder: Path) -> tuple[dict[str, frozenset[str]], list[str]]:
    files: dict[str, frozenset[str]] = {}
    litter: list[str] = []
    for path in _children(folder):
        if not (path.name.startswith(_CDI_PREFIX) and path.suffix == ".json"):
            litter.append(str(path))
            continue
        with suppress(FileNotFoundError):  # it is being removed at this moment
            files[path.stem.removeprefix(_CDI_PREFIX)] = _cdi_ids(path.read_bytes())
    return files, litter


def _cdi_ids(spec: bytes) -> frozenset[str]:
    """As a runtime reads it: what is no CDI spec resolves nothing."""
    try:
        content = json.loads(spec)
        return frozenset(f"{content['kind']}={one['name']}" for one in content["devices"])
    except (ValueError, KeyError, TypeError):
        return frozenset()


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _allocated(claim: JsonObject) -> frozenset[tuple[str, str]]:
    allocation = claim.get("status", {}).get("allocation") or {}
    results = allocation.get("devices", {}).get("results", ())
    return frozenset((result["pool"], result["device"]) for result in results)
