"""A plugin dies at each point that a start passes: while it recovers from an earlier crash, mends a record, or publishes.

As in `crashing_calls`, an unharmed start tells the points. Here every process of a case begins with the same mess, made anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Final

from dra_driver.journal.store import read_boot_id
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import JsonObject
from tests.faults.crash_scene import NODE_NAME, TWO_PARTITIONS, Scene
from tests.faults.kill_points import ENVIRONMENT, TRACE, KillPoint


class CrashingStart(ABC):
    """One kind of mess that a plugin finds when it starts."""

    name: str

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._node = scene.node

    async def run(self) -> None:
        """Die everywhere once, up to the first violation."""
        outcome = self._scene.outcome
        for point in await self._passed():
            claim = await self._new_mess()
            if await self._node.start({ENVIRONMENT: str(point)}):
                await self._node.dies()
            outcome.died.append(point)
            outcome.note(point, "after the kill", await self._node.wrongs(settled=False))
            await self._node.start()
            outcome.note(point, "after the restart", await self._node.settles())
            if not await self._scene.give_back(point, claim):
                break

    @abstractmethod
    async def _new_mess(self) -> JsonObject:
        """Make it; no plugin is running. The claim that it is about."""

    async def _passed(self) -> list[KillPoint]:
        claim = await self._new_mess()
        trace = self._node.folder / "trace"
        await self._node.start({TRACE: str(trace)})
        assert await self._node.settles() == []
        await self._scene.give_back(KillPoint("Start", self.name, "after"), claim)
        points = [KillPoint.parse(line) for line in trace.read_text().split()]
        trace.unlink()
        return self._of_the_start(points)

    @abstractmethod
    def _of_the_start(self, points: list[KillPoint]) -> list[KillPoint]:
        """Those at which a start dies for sure: neither of the calls that followed, nor of what comes in any number."""


class HalfDone(CrashingStart):
    """A predecessor died when a claim's last partition was there and not written down: undoing it is interrupted, too."""

    name = "half-done work"

    async def _new_mess(self) -> JsonObject:
        claim = await self._scene.new_claim(TWO_PARTITIONS)
        await self._node.start({ENVIRONMENT: "Backend.CreateStage.after:4"})
        with suppress(ConnectionError):
            assert await self._node.prepare(claim) == ""
        await self._node.dies()
        return claim

    def _of_the_start(self, points: list[KillPoint]) -> list[KillPoint]:
        last = points.index(KillPoint("ClaimStore", "forget", "after"))
        return [point for point in points[: last + 1] if point.port != "KubeApi"]


class Damaged(CrashingStart):
    """A byte of a prepared claim's record was flipped."""

    name = "damaged record"

    async def _new_mess(self) -> JsonObject:
        claim = await self._scene.new_claim(TWO_PARTITIONS)
        await self._node.start()
        assert await self._node.prepare(claim) == ""
        await self._node.kill()
        uid = claim["metadata"]["uid"]
        self._node.ledger.damaged.add(uid)
        path = self._node.data_dir / "claims" / read_boot_id() / f"{uid}.jsonl"
        data = bytearray(path.read_bytes())
        data[200] ^= 1
        path.write_bytes(data)
        return claim

    def _of_the_start(self, points: list[KillPoint]) -> list[KillPoint]:
        last = points.index(KillPoint("ClaimStore", "rebuild", "after"))
        return [point for point in points[: last + 1] if point.port != "KubeApi"]


class Unpublished(CrashingStart):
    """Of the node's slices one is gone, one was edited, and one is nobody's."""

    name = "broken slices"

    async def _new_mess(self) -> JsonObject:
        api = self._scene.cluster.api
        ours = sorted(
            (await api.list(RESOURCE_SLICE)).items, key=lambda item: str(item["metadata"]["name"])
        )
        stranger = {
            "metadata": {"name": "stranger"},
            "spec": {
                "driver": DRIVER_NAME,
                "nodeName": NODE_NAME,
                "pool": {"name": "stranger", "generation": 1, "resourceSliceCount": 1},
                "devices": [{"name": "stranger"}],
            },
        }
        await api.create(RESOURCE_SLICE, stranger)
        await api.delete(RESOURCE_SLICE, ours[-1]["metadata"]["name"])
        edited = ours[-2] | {
            "spec": ours[-2]["spec"] | {"devices": ours[-2]["spec"]["devices"][1:]}
        }
        await api.replace(RESOURCE_SLICE, edited)
        return await self._scene.new_claim(TWO_PARTITIONS)

    def _of_the_start(self, points: list[KillPoint]) -> list[KillPoint]:
        return [point for point in points if point.port == "KubeApi"]


STARTS: Final[tuple[type[CrashingStart], ...]] = (HalfDone, Damaged, Unpublished)
