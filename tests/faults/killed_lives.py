"""A node whose plugin lives one short life after the other, each ended by SIGKILL at a random moment under load.

24 claims on 8 GPUs: whole ones, partitions, monitors, and three that take turns on one GPU. In each life some of them are
prepared, replayed or unprepared at once. Which ones follows from the seed alone; the moments of the kills do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final

from dra_driver.ports import JsonObject
from tests.faults.cluster import Cluster
from tests.faults.node import Node

MACHINE: Final = "8xh100-80"
_GPUS: Final = tuple(
    f"gpu-0000-{bus}-00-0" for bus in ("1b", "43", "52", "61", "9d", "c3", "d1", "df")
)
_PARTITIONS: Final = ("1g-10gb-6", "1g-10gb-5", "1g-10gb-4", "3g-40gb-0")
_START_S: Final = 0.2
_LATER_S: Final = 0.02


@dataclass(slots=True, eq=False)
class Slot:
    """A device that one claim after the other holds. `turns` is shared by those that exclude each other."""

    device: str
    admin: bool = False
    turns: asyncio.Lock = field(default_factory=asyncio.Lock)
    claim: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What is going to happen to one process.

    `calls` are made at once: the slot's number, and whether it is to be prepared. The kill comes `delay_s` after so many answers,
    or after the fork where it comes `while_starting`. `settles`: its predecessor's work is checked before the first call.
    """

    calls: Sequence[tuple[int, bool]]
    answers: int
    delay_s: float
    while_starting: bool
    settles: bool

    @classmethod
    def drawn(cls, rng: Random, calls: int) -> Life:
        """One with so many calls."""
        while_starting = rng.random() < 0.1
        return cls(
            calls=[(slot, rng.random() < 0.6) for slot in rng.sample(range(24), calls)],
            answers=rng.randrange(calls + 1),
            delay_s=rng.uniform(0, _START_S if while_starting else _LATER_S),
            while_starting=while_starting,
            settles=rng.random() < 0.5,
        )


class KilledLives:
    """One node, its claims, and all that was ever wrong. `answered` counts the calls that came to their end."""

    def __init__(self, node: Node, cluster: Cluster) -> None:
        self._node = node
        self._cluster = cluster
        self._slots = _slots()
        self.wrongs: list[str] = []
        self.answered = 0

    async def begin(self) -> None:
        """All slots have claims, and all is published."""
        for slot in self._slots:
            slot.claim = await self._cluster.new_claim(slot.device, admin=slot.admin)
        await self._node.start()
        self._note("before the first kill", await self._node.settles())
        await self._node.kill()

    async def live(self, life: Life, name: str) -> None:
        """One process from its start to its kill, and what it has left."""
        if life.while_starting:
            await self._node.launch()
            await asyncio.sleep(life.delay_s)
            await self._node.kill()
        else:
            await self._node.start()
            if life.settles:
                self._note(f"{name}, after its start", await self._node.settles())
            await self._work(life, name)
        self._note(f"{name}, after the kill", await self._node.wrongs(settled=False))

    async def end(self) -> None:
        """Everything is given back, and nothing is left."""
        await self._node.start()
        for slot in self._slots:
            error = await self._node.unprepare(slot.claim)
            self._note("in the end", [error] if error else [])
        self._note("in the end", await self._node.settles())
        backend = self._node.backend
        self._note(
            "left in the end",
            [
                *self._node.cdi_dir.iterdir(),
                *self._node.data_dir.glob("claims/*/*"),
                *(one for gpu in backend.addresses() for one in backend.read(gpu).instances),
            ],
        )
        await self._node.stop()

    async def _work(self, life: Life, name: str) -> None:
        enough = self.answered + life.answers
        calls = {asyncio.create_task(self._call(slot, name, prepares=p)) for slot, p in life.calls}
        pending = calls
        while pending and self.answered < enough:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(life.delay_s)
        await self._node.kill()
        await asyncio.gather(*calls)

    async def _call(self, number: int, name: str, *, prepares: bool) -> None:
        """One call for the slot, after those that make room for it; a kill ends it."""
        slot = self._slots[number]
        with suppress(ConnectionError):
            async with slot.turns:
                if prepares:
                    for rival in self._slots:
                        if rival.turns is slot.turns and rival is not slot:
                            await self._unprepare(rival, name)
                    error = await self._node.prepare(slot.claim)
                    self._note(f"{name}, {slot.device}", [error] if error else [])
                else:
                    await self._unprepare(slot, name)
                self.answered += 1

    async def _unprepare(self, slot: Slot, name: str) -> None:
        """Afterwards the slot has a new claim: as in a cluster, what was unprepared is gone."""
        error = await self._node.unprepare(slot.claim)
        self._note(f"{name}, {slot.device}", [error] if error else [])
        if not error:
            await self._cluster.delete(slot.claim)
            slot.claim = await self._cluster.new_claim(slot.device, admin=slot.admin)

    def _note(self, when: str, wrongs: Sequence[object]) -> None:
        self.wrongs += [f"{when}: {wrong}" for wrong in wrongs]


def _slots() -> list[Slot]:
    whole = [Slot(gpu) for gpu in (*_GPUS[:2], _GPUS[7])]
    partitions = [Slot(f"{gpu}-mig-{part}") for gpu in _GPUS[2:6] for part in _PARTITIONS]
    lock = asyncio.Lock()
    ends = ("", "-mig-7g-80gb-0", "-mig-1g-10gb-6")
    taking_turns = [Slot(f"{_GPUS[6]}{end}", turns=lock) for end in ends]
    monitors = [Slot(f"{gpu}-monitor", admin=True) for gpu in (_GPUS[0], _GPUS[2])]
    return [*whole, *partitions, *taking_turns, *monitors]
