"""Taints on devices, and requests that take tainted devices all the same (KEP-5055)."""

from __future__ import annotations

from collections.abc import Iterable

from dra_driver.model.claim import Toleration
from dra_driver.model.slices import Taint

_KEEPING_AWAY = ("NoSchedule", "NoExecute")


def untolerated(taints: Iterable[Taint], tolerations: Iterable[Toleration]) -> Taint | None:
    """The first taint that keeps the request away; effects other than NoSchedule and NoExecute keep nobody away."""
    tolerations = tuple(tolerations)
    for taint in taints:
        if taint.effect in _KEEPING_AWAY and not any(_tolerates(t, taint) for t in tolerations):
            return taint
    return None


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect not in {"", taint.effect}:
        return False
    if toleration.key not in {"", taint.key}:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.value == taint.value
