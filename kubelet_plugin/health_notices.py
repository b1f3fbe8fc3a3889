"""Tells people, by Events on the Node, when the health of a GPU changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from dra_driver.model.device import Placement
from dra_driver.model.health import Cause, Condition
from dra_driver.model.reasons import Reason
from dra_driver.model.slices import TaintEffect
from kubelet_plugin.node_object import NodeObject

_Change: TypeAlias = tuple[Cause, Placement | None, str, TaintEffect]


class HealthNotices:
    """Each change once: a condition that came or got another effect, and a GPU that is well again."""

    def __init__(self, node: NodeObject) -> None:
        self._node = node
        self._told: dict[str, frozenset[_Change]] = {}

    async def tell(self, by_gpu: Mapping[str, Sequence[Condition]]) -> None:
        """Write what is new since the last time."""
        for gpu in sorted(by_gpu.keys() | self._told.keys()):
            current = {_change(one): one for one in by_gpu.get(gpu, ())}
            told = self._told.get(gpu, frozenset())
            for sentence in sorted(
                _sentence(one) for key, one in current.items() if key not in told
            ):
                await self._node.tell(Reason.GPU_UNHEALTHY, f"GPU {gpu}{sentence}")
            if told and not current:
                await self._node.tell(Reason.GPU_RECOVERED, f"GPU {gpu}: what was wrong is over")
            self._told[gpu] = frozenset(current)


def described(condition: Condition) -> str:
    """What is wrong, in a few words, after the GPU's name."""
    place = condition.ailment.instance
    where = "" if place is None else f", partition at position {place.start}"
    return f"{where}: {condition.ailment.message}"


def _change(condition: Condition) -> _Change:
    """Not by its message, which may count: errors that go on are one piece of news."""
    one = condition.ailment
    return one.cause, one.instance, one.detail, condition.effect


def _sentence(condition: Condition) -> str:
    consequences = {
        "None": "",
        "NoSchedule": "; no new claim gets it",
        "NoExecute": "; its pods are evicted",
    }
    return described(condition) + consequences[condition.effect]
