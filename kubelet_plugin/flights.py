"""Calls for one claim, one at a time: equal ones share an execution, different ones follow one another as they came."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dra_driver.model.errors import ClaimError
from kubelet_plugin.slow_lane import SlowLane

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Flight:
    """One execution. While it is `committed` it goes on; otherwise it ends when nobody wants it any more."""

    operation: str
    committed: bool = False
    callers: int = 0
    unwanted: bool = False
    task: asyncio.Task[Any] = field(init=False)

    def abandon(self) -> None:
        """Its callers are gone, or something else is to be done: end it, as soon as that is possible."""
        self.unwanted = True
        if not self.committed:
            self.task.cancel()

    def reconsider(self) -> None:
        """For the execution itself: nothing is begun any more, so it ends here if nobody wants it."""
        self.committed = False
        if self.unwanted:
            raise asyncio.CancelledError


class Flights:
    """The executions under way, by claim, in the order of their calls."""

    def __init__(self) -> None:
        self._under_way: defaultdict[str, list[Flight]] = defaultdict(list)
        self._lane = SlowLane()

    async def join(
        self,
        uid: str,
        flight: Flight,
        start: Callable[[Flight], Coroutine[Any, Any, T]],
    ) -> T:
        """The result of the claim's latest execution if it is of this operation, else of `flight`, which follows it.

        Joining an earlier one would answer with what the one in between undoes. Another operation that is not committed
        gives way: ClaimError for its callers.
        """
        latest = self._latest(uid)
        if latest is not None and latest.operation == flight.operation:
            flight = latest
            flight.unwanted = False
        else:
            self._begin(uid, flight, start)
        flight.callers += 1
        try:
            result: T = await self._result(flight)
            return result
        finally:
            flight.callers -= 1
            if not flight.callers:
                flight.abandon()

    async def finish(self) -> None:
        """Return when nothing is under way."""
        while tasks := [one.task for flights in self._under_way.values() for one in flights]:
            await asyncio.wait(tasks)

    def _latest(self, uid: str) -> Flight | None:
        """The claim's last execution, unless it is being ended."""
        flights = self._under_way.get(uid)
        return flights[-1] if flights and not flights[-1].task.cancelling() else None

    async def _result(self, flight: Flight) -> Any:
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise ClaimError(
                f"the {flight.operation} gave way to another call for the claim; nothing was done"
            ) from None

    def _begin(
        self,
        uid: str,
        flight: Flight,
        start: Callable[[Flight], Coroutine[Any, Any, T]],
    ) -> None:
        under_way = self._under_way[uid]
        if under_way:
            under_way[-1].abandon()
        former = [one.task for one in under_way]

        async def execute() -> T:
            if former:
                await asyncio.wait(former)
            return await self._lane.drive(start(flight))

        flight.task = asyncio.create_task(execute())
        flight.task.add_done_callback(lambda task: self._land(uid, flight, task))
        under_way.append(flight)

    def _land(self, uid: str, flight: Flight, task: asyncio.Task[Any]) -> None:
        under_way = self._under_way[uid]
        under_way.remove(flight)
        if not under_way:
            del self._under_way[uid]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody need have waited
