"""What the node's GPUs do, measured on a schedule, one after the other and none while its hardware changes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from dra_driver.model.activity import Activity
from dra_driver.model.errors import DraError
from dra_driver.observe.containers import Container
from dra_driver.ports import Clock
from kubelet_plugin.gpu_calls import GpuCalls
from kubelet_plugin.locks import NodeLocks, gpu_lock
from kubelet_plugin.state import NodeState

log = structlog.get_logger(__name__)

IDLE_ROUNDS = 6
"""A GPU that no claim holds, and on which nothing ran, is measured in one round of so many; all in the same, as most of the cost is in waking up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was measured on a GPU and its partitions, and the containers of the processes there by process ID."""

    activities: tuple[Activity, ...]
    containers: Mapping[int, Container] = field(default_factory=dict)


class Processes(Protocol):
    """The host's processes, as far as this one sees them."""

    @property
    def are_seen(self) -> bool:
        """Whether the process IDs that drivers tell this process are the host's, and complete."""

    def of(self, pid: int) -> Container | None:
        """The process's container, where it is in one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """Who uses devices: the containers of processes, and the names of the pods that use each claim (namespace and name)."""

    containers: Processes
    pods_by_claim: Callable[[], Awaitable[Mapping[tuple[str, str], Collection[str]]]]


class ActivityWatch:
    """`seen` has what was last measured, by PCI address; a GPU that cannot be measured is not in it: no data is no idleness.

    `pods` has the names of the pods of claims by the claims' UIDs, as far as the kubelet has said.
    """

    def __init__(self, state: NodeState, calls: GpuCalls, locks: NodeLocks, users: Users) -> None:
        self._state = state
        self._calls = calls
        self._locks = locks
        self._users = users
        self._rounds = 0
        self._asked_for: frozenset[str] = frozenset()
        self._rounds_since_asked_for = 0
        self.seen: dict[str, Seen] = {}
        self.pods: Mapping[str, Collection[str]] = {}

    async def run(self, interval_s: float, clock: Clock, leads: Callable[[], bool]) -> None:
        """Measure at that interval while this process leads: a GPU that another one may change is not held by two."""
        while True:
            await clock.sleep(interval_s)
            if leads():
                await self.look()
            else:
                self.seen.clear()
                self._rounds = 0  # whoever leads again begins with all

    async def look(self) -> None:
        """Measure every GPU whose turn it is; those that are gone, or out of use, have no activity any more."""
        usable = {
            gpu.pci_address: pool
            for pool, inventory in self._state.inventories.items()
            for gpu in inventory.gpus
        }
        for gone in self.seen.keys() - usable.keys():
            del self.seen[gone]
        in_use, is_idle_round = self._held() | self._busy(), self._rounds % IDLE_ROUNDS == 0
        due: defaultdict[str, list[str]] = defaultdict(list)
        for address, pool in usable.items():
            if is_idle_round or address in in_use:
                due[pool].append(address)
        await asyncio.gather(*(self._measure(pool, those) for pool, those in due.items()))
        await self._look_for_pods()
        self._rounds += 1

    def _held(self) -> set[str]:
        return {
            grant.gpu
            for record in self._state.records.values()
            for grant in record.grants
            if not grant.monitor
        }

    def _busy(self) -> set[str]:
        """Where processes are not told, claims alone say that a GPU is in use."""
        return {
            address
            for address, seen in self.seen.items()
            if any(one.processes for one in seen.activities)
        }

    async def _measure(self, pool: str, addresses: Collection[str]) -> None:
        """While somebody changes or asks a GPU, in this process or another, what was seen last stays, with its time.

        A GPU that hangs keeps this from being called again. Were it asked behind a call that hangs already, its lock would be held
        while that one's caller, who has found out by then, wants to look at it.
        """
        turns: dict[str, AsyncExitStack] = {}
        try:
            for address in addresses:
                turn = await self._turn(address)
                if turn is not None:
                    turns[address] = turn
            async for address, answer in self._calls.activity_each(pool, tuple(turns)):
                async with turns.pop(address):
                    self._note(address, answer)
        finally:
            for turn in turns.values():
                await turn.aclose()

    async def _turn(self, address: str) -> AsyncExitStack | None:
        """The GPU's turn, which ends with the stack; None where somebody has it, or asks the GPU."""
        turn = AsyncExitStack()
        try:
            async with asyncio.timeout(0):
                await turn.enter_async_context(self._locks.held(gpu_lock(address)))
        except TimeoutError:
            return None
        except OSError as error:
            self._note(address, error)
            return None
        if self._calls.is_busy(address):
            await turn.aclose()
            return None
        return turn

    def _note(self, address: str, answer: tuple[Activity, ...] | Exception) -> None:
        if isinstance(answer, Exception):
            log.debug("a GPU cannot be measured", gpu=address, why=str(answer))
            self.seen.pop(address, None)
        else:
            self.seen[address] = self._attributed(answer)

    def _attributed(self, activities: tuple[Activity, ...]) -> Seen:
        """A driver tells only what the caller's PID namespace has: elsewhere than in the host's, no processes may be many."""
        if not self._users.containers.are_seen:
            return Seen(activities=tuple(replace(one, processes=None) for one in activities))
        pids = {process.pid for one in activities for process in one.processes or ()}
        found = {pid: self._users.containers.of(pid) for pid in pids}
        containers = {pid: container for pid, container in found.items() if container}
        return Seen(activities=activities, containers=containers)

    async def _look_for_pods(self) -> None:
        """The kubelet is asked when claims have come or gone, for a while also for those whose pods are unknown, and again now and then."""
        names = {
            uid: (record.claim.namespace, record.claim.name)
            for uid, record in self._state.records.items()
        }
        if names.keys() != self._asked_for:
            self._asked_for, self._rounds_since_asked_for = frozenset(names), 0
        is_new = self._rounds_since_asked_for < IDLE_ROUNDS and not names.keys() <= self.pods.keys()
        is_due = self._rounds_since_asked_for % IDLE_ROUNDS == 0
        self._rounds_since_asked_for += 1
        if not names:
            self.pods = {}
        elif is_new or is_due:
            self.pods = await self._pods_of(names)

    async def _pods_of(self, names: Mapping[str, tuple[str, str]]) -> Mapping[str, Collection[str]]:
        """By UID: the kubelet knows claims by name alone, and the next claim of a name is used by others."""
        try:
            pods = await self._users.pods_by_claim()
        except DraError as error:
            log.debug("the kubelet does not say which pods use claims", why=str(error))
            return {}
        return {uid: pods[name] for uid, name in names.items() if name in pods}
