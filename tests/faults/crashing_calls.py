"""A plugin dies at each point that a prepare or an unprepare passes.

A first process does the operation unharmed, and its trace says which points there are. Then, for each of them, a process dies
there. What it left is looked at; its successor cleans up and goes on in one of the two ways in which a kubelet may: with the same
call again, or with the other one, as pods go and come back. In the end the claim is given back.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Final, Literal, TypeAlias

from dra_driver.ports import JsonObject
from tests.faults.crash_scene import GPU, Form, Scene
from tests.faults.kill_points import ENVIRONMENT, TRACE, KillPoint, sdk_points

Operation: TypeAlias = Literal["prepare", "unprepare"]
When: TypeAlias = Literal["before", "after"]
OPERATIONS: Final[tuple[Operation, ...]] = ("prepare", "unprepare")
WHENS: Final[tuple[When, ...]] = ("before", "after")


class CrashingCall:
    """One kind of claim and one operation, on one node; the points before what changes something, or those after it."""

    def __init__(
        self,
        scene: Scene,
        form: Form,
        operation: Operation,
        when: When,
    ) -> None:
        self._scene = scene
        self._node = scene.node
        self._form = form
        self._operation: Operation = operation
        self._when = when
        self._trace = scene.node.folder / "trace"

    async def run(self) -> None:
        """Die everywhere once, with both ways to go on in turn; up to the first violation, which would spoil what follows."""
        outcome = self._scene.outcome
        points = [*await self._passed(), *sdk_points()]
        for number, point in enumerate(one for one in points if one.when == self._when):
            claim = await self._scene.new_claim(self._form)
            if await self._die_at(point, claim):
                outcome.died.append(point)
                outcome.note(point, "after the kill", await self._node.wrongs(settled=False))
                await self._node.start()
                outcome.note(point, "after the restart", await self._node.settles())
                if number % 2:
                    await self._prepare_again(point, claim)
            else:
                outcome.unreached.append(point)
            if not await self._scene.give_back(point, claim):
                break

    async def _passed(self) -> list[KillPoint]:
        claim = await self._scene.new_claim(self._form)
        await self._node.start({TRACE: str(self._trace)})
        assert await self._node.settles() == []
        before = len(self._traced())
        assert await self._node.prepare(claim) == ""
        between = await self._traced_to("Reply.prepare.after:1")
        assert await self._node.unprepare(claim) == ""
        end = await self._traced_to("Reply.unprepare.after:1")
        points = self._traced()[slice(before, between)]
        if self._operation == "unprepare":
            points = self._traced()[slice(between, end)]
        await self._node.stop()
        self._trace.unlink()
        await self._scene.cluster.delete(claim)
        return [point for line in points if (point := KillPoint.parse(line)).port != "KubeApi"]

    def _traced(self) -> list[str]:
        return self._trace.read_text().split()

    async def _traced_to(self, point: str) -> int:
        """How long the trace is once it has the point: a reply is here before its sender knows that it was sent."""
        async with asyncio.timeout(10):
            while True:
                if point in (traced := self._traced()):
                    return len(traced)
                await asyncio.sleep(0.001)

    async def _die_at(self, point: KillPoint, claim: JsonObject) -> bool:
        """Whether a process died there. Points inside the SDK are not traced: some are not reached."""
        faults = self._node.hardware_dir / "faults.json"
        await self._node.start({} if point.port == "Sdk" else {ENVIRONMENT: str(point)})
        if self._operation == "unprepare":
            assert await self._node.prepare(claim) == ""
        if point.port == "Sdk":
            faults.write_text(json.dumps({GPU: {"kill": point.when, "calls": [point.what]}}))
        call = self._node.prepare if self._operation == "prepare" else self._node.unprepare
        answered = False
        with suppress(ConnectionError):
            assert await call(claim) == ""
            answered = True
        faults.unlink(missing_ok=True)
        if point.port == "Sdk" and answered:
            return False
        await self._node.dies()
        return True

    async def _prepare_again(self, point: KillPoint, claim: JsonObject) -> None:
        for when in ("prepared again", "replayed"):
            error = await self._node.prepare(claim)
            wrongs = [error] if error else await self._node.settles()
            self._scene.outcome.note(point, when, wrongs)
