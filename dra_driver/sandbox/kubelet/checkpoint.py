"""What the kubelet remembers of claims over its own restart: `dra_manager_state.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dra_driver.model.claim import ClaimRef
from dra_driver.model.record import PreparedDevice
from dra_driver.ports import JsonObject


@dataclass(slots=True, kw_only=True)
class HeldClaim:
    """A claim that pods of this node use. `devices` has an entry for every driver of the claim, empty until it answered.

    `prepared` is never trusted over a restart: drivers are asked again for claims in use.
    """

    ref: ClaimRef
    pods: set[str] = field(default_factory=set)
    devices: dict[str, tuple[PreparedDevice, ...]] = field(default_factory=dict)
    prepared: bool = False


class Checkpoint:
    """The file; the claims in it can be unprepared even when nothing else is left of them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> list[HeldClaim]:
        """What was saved last; nothing where nothing ever was."""
        if not self._path.exists():
            return []
        return [_claim_from_json(item) for item in json.loads(self._path.read_text())["claims"]]

    def save(self, claims: Iterable[HeldClaim]) -> None:
        """Replace the file at once."""
        content = {"version": 1, "claims": [_claim_to_json(claim) for claim in claims]}
        fresh = self._path.with_suffix(".tmp")
        fresh.write_text(json.dumps(content, indent=1))
        fresh.replace(self._path)


def _claim_to_json(claim: HeldClaim) -> JsonObject:
    devices = {name: [asdict(device) for device in held] for name, held in claim.devices.items()}
    return {**asdict(claim.ref), "pods": sorted(claim.pods), "drivers": devices}


def _claim_from_json(item: JsonObject) -> HeldClaim:
    return HeldClaim(
        ref=ClaimRef(namespace=item["namespace"], name=item["name"], uid=item["uid"]),
        pods=set(item["pods"]),
        devices={
            name: tuple(_device_from_json(device) for device in held)
            for name, held in item["drivers"].items()
        },
    )


def _device_from_json(item: dict[str, Any]) -> PreparedDevice:
    return PreparedDevice(
        requests=tuple(item["requests"]),
        pool=item["pool"],
        device=item["device"],
        cdi_ids=tuple(item["cdi_ids"]),
        share_id=item["share_id"],
    )
