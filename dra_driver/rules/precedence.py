"""Which opaque parameters hold for an allocated device (KEP-4381: class before claim, later entries win)."""

from __future__ import annotations

from collections.abc import Sequence

from dra_driver.model.claim import AllocationResult, OpaqueConfig


def config_for(
    result: AllocationResult, config: Sequence[OpaqueConfig], driver: str
) -> OpaqueConfig | None:
    """The one entry of the driver that decides for the result, or None; the winner holds whole, nothing is merged.

    An entry of the claim beats every entry of a class, wherever it stands; among equals the last one wins.
    """
    applying = [
        entry for entry in config if entry.driver == driver and _covers(entry.requests, result)
    ]
    from_claim = [entry for entry in applying if entry.source == "FromClaim"]
    candidates = from_claim or applying
    return candidates[-1] if candidates else None


def _covers(requests: Sequence[str], result: AllocationResult) -> bool:
    """No requests cover all; `main` covers whichever of its alternatives was chosen, `main/sub` only that one."""
    return not requests or result.request in requests or result.main_request in requests
