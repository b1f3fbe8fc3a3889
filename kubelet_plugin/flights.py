"""Calls for one claim, one at a time: equal ones share an execution, different ones follow one another as they came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dra_driver.model.errors import ClaimError

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Flight:
    """One execution. Once it is `committed` it goes on to its end; before, it ends with its last caller."""

    operation: str
    committed: bool = False
    callers: int = 0
    task: asyncio.Task[Any] = field(init=False)


class Flights:
    """The executions under way, by claim."""

    def __init__(self) -> None:
        self._latest: dict[str, Flight] = {}

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
        latest = self._latest.get(uid)
        if latest is not None and latest.operation == flight.operation:
            flight = latest
        else:
            self._begin(uid, flight, start)
        flight.callers += 1
        try:
            result: T = await self._result(flight)
            return result
        finally:
            flight.callers -= 1
            if not flight.callers:
                self._abandon(uid, flight)

    async def finish(self) -> None:
        """Return when nothing is under way."""
        while self._latest:
            await asyncio.wait([flight.task for flight in self._latest.values()])

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
        former = self._latest.get(uid)
        if former is not None:
            self._abandon(uid, former)

        async def execute() -> T:
            if former is not None:
                await asyncio.wait([former.task])
            return await start(flight)

        flight.task = asyncio.create_task(execute())
        flight.task.add_done_callback(lambda task: self._land(uid, flight, task))
        self._latest[uid] = flight

    def _abandon(self, uid: str, flight: Flight) -> None:
        if not flight.committed and not flight.task.done():
            self._forget(uid, flight)
            flight.task.cancel()

    def _land(self, uid: str, flight: Flight, task: asyncio.Task[Any]) -> None:
        self._forget(uid, flight)
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody need have waited

    def _forget(self, uid: str, flight: Flight) -> None:
        if self._latest.get(uid) is flight:
            del self._latest[uid]
