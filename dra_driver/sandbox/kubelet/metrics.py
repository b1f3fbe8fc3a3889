"""What the kubelet's `/metrics` says of claims, as a file: `dra_resource_claims_in_use` (Kubernetes 1.34 and newer)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from dra_driver.sandbox.kubelet.checkpoint import HeldClaim

ANY_DRIVER = "<any>"
"""The label under which every claim counts once, whatever drivers it has."""


def claims_in_use(claims: Iterable[HeldClaim]) -> Counter[str]:
    """How many claims each driver has in use, and how many there are at all."""
    found: Counter[str] = Counter({ANY_DRIVER: 0})
    for claim in claims:
        found.update((ANY_DRIVER, *claim.devices))
    return found


def write_metrics(path: Path, claims: Iterable[HeldClaim]) -> None:
    """The file is a scrape of now."""
    name = "dra_resource_claims_in_use"
    lines = [f"# TYPE {name} gauge"]
    for driver, amount in sorted(claims_in_use(claims).items()):
        lines.append(f'{name}{{driver_name="{driver}"}} {amount}')
    fresh = path.with_suffix(".tmp")
    fresh.write_text("\n".join([*lines, ""]))
    fresh.replace(path)
