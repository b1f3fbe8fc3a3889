"""Tells people, by Events on the Node, when the health of a GPU changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dra_driver.model.health import Condition
from dra_driver.model.reasons import Reason
from kubelet_plugin.node_object import NodeObject


class HealthNotices:
    """Each change once: a condition that came or got another effect, and a GPU that is well again."""

    def __init__(self, node: NodeObject) -> None:
        self._node = node
        self._told: dict[str, frozenset[str]] = {}

    async def tell(self, by_gpu: Mapping[str, Sequence[Condition]]) -> None:
        """Write what is new since the last time."""
        for gpu in sorted(by_gpu.keys() | self._told.keys()):
            current = frozenset(_sentences(by_gpu.get(gpu, ())))
            told = self._told.get(gpu, frozenset())
            for sentence in sorted(current - told):
                await self._node.tell(Reason.GPU_UNHEALTHY, f"GPU {gpu}{sentence}")
            if told and not current:
                await self._node.tell(Reason.GPU_RECOVERED, f"GPU {gpu}: what was wrong is over")
            self._told[gpu] = current


def described(condition: Condition) -> str:
    """What is wrong, in a few words, after the GPU's name."""
    place = condition.ailment.instance
    where = "" if place is None else f", partition at position {place.start}"
    return f"{where}: {condition.ailment.message}"


def _sentences(found: Sequence[Condition]) -> Iterator[str]:
    consequences = {
        "None": "",
        "NoSchedule": "; no new claim gets it",
        "NoExecute": "; its pods are evicted",
    }
    return (described(one) + consequences[one.effect] for one in found)
