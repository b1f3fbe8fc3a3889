"""A node in virtual time, and a kubelet that calls it in any order: what it was promised is checked at every answer.

The kubelet's view is the measure. A claim is in use from a prepare that succeeded until an unprepare is called; meanwhile no
other claim may be given what it has, and everything it was told must be there.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from dra_driver.config.machine import Machine
from dra_driver.journal.store import read_boot_id
from dra_driver.model.errors import DraError
from dra_driver.model.kinds import Kind
from dra_driver.model.names import DRIVER_NAME
from dra_driver.model.record import PreparedDevice
from dra_driver.ports import Backend, JsonObject
from kubelet_plugin import node as node_parts
from kubelet_plugin.claims import DEADLINE_S
from tests.faults import outside
from tests.faults.invariants import violations
from tests.faults.ledger import Foreign, Ledger, Told
from tests.faults.virtual_time import LoopClock, VirtualLoop, VirtualWorkers
from tests.kubelet_plugin.conftest import NODE, POOL, CountingApi, NodePlugin, ref

GPU = "gpu-0000-1b-00-0"
DEVICES: dict[str, tuple[str, ...]] = {
    "whole": (GPU,),
    "small": (f"{GPU}-mig-1g-10gb-6",),
    "large": (f"{GPU}-mig-3g-40gb-4",),
    "pair": (f"{GPU}-mig-1g-10gb-0", f"{GPU}-mig-1g-10gb-6"),
}
SLICES = {"whole": set(range(8)), "small": {6}, "large": {4, 5, 6, 7}, "pair": {0, 6}}
"""The memory slices that each takes: two claims with a common one exclude each other."""


class SlowApi(CountingApi):
    """Its answers take some time, so that everything else may happen meanwhile."""

    async def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> JsonObject:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        assert loop.dice is not None
        await asyncio.sleep(loop.dice.choice((0, 0, 0.01, 2)))
        answer = await super().get(kind, name, namespace=namespace)
        await loop.pause()
        return answer


class UnsyncedPlugin(NodePlugin):
    """Nothing here survives a power cut, so no disk has to be waited for."""

    boot_id = read_boot_id()

    def _sync(self, descriptor: int) -> None:
        self.syncs += 1


@dataclass(slots=True)
class Place:
    """Where to look from outside."""

    node: str
    data_dir: Path
    cdi_dir: Path
    backend: Backend


@dataclass(slots=True)
class Use:
    """One claim object, and what the kubelet knows of it; `asked_at` and `unprepared_at` number its last calls."""

    claim: JsonObject
    kind: str
    devices: tuple[PreparedDevice, ...] | None = None
    asked_at: int = 0
    unprepared_at: int = 0
    is_released: bool = False
    refusal: str = ""

    @property
    def uid(self) -> str:
        uid: str = self.claim["metadata"]["uid"]
        return uid

    @property
    def name(self) -> str:
        name: str = self.claim["metadata"]["name"]
        return name


@dataclass
class InterleavedNode:
    """A plugin that may die and start again, its kubelet, and its API server. `broken`: everything that was wrong.

    `devices` and `slices` say what each kind of claim is allocated, and which memory slices that takes.
    """

    folder: Path
    machine: Machine
    dice: random.Random
    devices: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: DEVICES)
    slices: Mapping[str, Collection[int]] = field(default_factory=lambda: SLICES)
    foreign: tuple[Foreign, ...] = ()
    splits: tuple[str, ...] = ()
    api: SlowApi = field(default_factory=SlowApi)
    uses: dict[str, Use] = field(default_factory=dict)
    calls: set[asyncio.Task[None]] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)
    answers: int = 0

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)

    async def start(self) -> None:
        """A new process over what the last one left: it serves at once, and looks and recovers meanwhile."""
        self.plugin = UnsyncedPlugin(self.folder, self.machine, self.api, splits=self.splits)
        setattr(self.plugin, "clock", LoopClock())  # noqa: B010 (one test clock for another)
        setattr(self.plugin, "in_use", _InUse(self))  # noqa: B010 (asked anew each time)
        with patch.object(node_parts, "Workers", VirtualWorkers):
            node = self.plugin.node = self.plugin.build()
        node.recovery.restore()

        async def work() -> None:
            await asyncio.sleep(self.dice.choice((0, 0, 5)))
            await node.survey.look()
            await node.recovery.run()
            await node.reconciler.run()

        self._background = asyncio.create_task(work())

    async def die(self) -> None:
        """The process is gone, whatever it was doing; nobody hears an answer any more."""
        main = asyncio.current_task()
        if self._background.done():
            self.broken.append(f"the process ended by itself: {self._background.exception()!r}")
        tasks = [task for task in asyncio.all_tasks() if task is not main]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.calls.clear()
        self.plugin.node.survey._locks.close()

    def allocate(self, name: str, kind: str) -> Use:
        """The scheduler gives a new claim of that name these devices; a former one of that name is gone."""
        number = next(self._numbers)
        place = {"request": "r", "driver": DRIVER_NAME, "pool": POOL}
        results = [place | {"device": device} for device in self.devices[kind]]
        claim: JsonObject = {
            "metadata": {
                "namespace": "default",
                "name": name,
                "uid": f"00000000-0000-0000-0000-{number:012d}",
                "resourceVersion": str(number),
            },
            "spec": {"devices": {}},
            "status": {"allocation": {"devices": {"results": results, "config": []}}},
        }
        self.api.claims[name] = claim
        use = self.uses[claim["metadata"]["uid"]] = Use(claim, kind)
        return use

    def is_known(self, use: Use) -> bool:
        """Whether the API server has it."""
        return self.api.claims.get(use.name) is use.claim

    def prepare(self, use: Use, within_s: float = DEADLINE_S) -> None:
        """The kubelet calls; the answer is checked when it comes. From now on the claim may be there again, heard or not."""
        use.is_released, use.asked_at = False, next(self._numbers)
        self._call(self._prepare(use, within_s, use.asked_at))

    def unprepare(self, use: Use) -> None:
        """The pod's containers have ended; the kubelet calls."""
        use.devices, use.is_released, use.unprepared_at = None, False, next(self._numbers)
        self._call(self._unprepare(use, use.unprepared_at))

    def _call(self, coroutine: object) -> None:
        assert asyncio.iscoroutine(coroutine)
        task = asyncio.create_task(coroutine)
        self.calls.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.calls.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            self.broken.append(f"a bug: {bug!r}")

    async def _prepare(self, use: Use, within_s: float, number: int) -> None:
        deadline = asyncio.get_running_loop().time() + within_s
        try:
            devices = await self.plugin.claims.prepare(ref(use.claim), deadline=deadline)
        except DraError as error:
            use.refusal = str(error)
            return
        self.answers += 1
        if number > use.unprepared_at:
            use.devices, use.is_released = devices, False
            self._check_answer(use)

    async def _unprepare(self, use: Use, number: int) -> None:
        try:
            await self.plugin.claims.unprepare(ref(use.claim))
        except DraError as error:
            self.broken.append(f"I4: unprepare of {use.name} failed: {error}")
            return
        self.answers += 1
        use.claim["metadata"]["resourceVersion"] = str(next(self._numbers))
        if number == use.unprepared_at > use.asked_at:
            use.is_released = True

    def _check_answer(self, use: Use) -> None:
        for other in self.uses.values():
            taken = {*self.slices[use.kind]} & {*self.slices[other.kind]}
            if other is not use and other.devices and taken:
                self.broken.append(f"double grant: {use.uid} {use.kind}, {other.uid} {other.kind}")
        record = self.plugin.store.read(use.uid)
        if record is None or record.preparation is None or record.releasing:
            self.broken.append(f"I2: {use.uid} was told that it is prepared, and its record is not")
        elif not self.plugin.cdi.holds(
            use.uid, record.preparation.edits, self.plugin.store.note(record)
        ):
            self.broken.append(f"I2: the CDI file of {use.uid} is not there")

    def check(self, *, settled: bool) -> None:
        """Compare what is there with what was said; for a moment in which no call is under way."""
        ledger = Ledger(foreign=self.foreign)
        for use in self.uses.values():
            if use.devices is not None:
                told = [Told(one.pool, one.device, one.cdi_ids) for one in use.devices]
                ledger.prepared(use.uid, told)
            elif use.is_released:
                ledger.unprepared(use.uid)
        place = Place(NODE, self.folder, self.folder / "cdi", self.plugin.backend)
        found = violations(outside.look(place), ledger, settled=settled)
        self.broken += [str(one) for one in found]


class _InUse:
    """What the kubelet's PodResources would say now: claims by name, as it knows no UIDs."""

    def __init__(self, node: InterleavedNode) -> None:
        self._node = node

    def __contains__(self, key: tuple[str, str]) -> bool:
        return any(use.devices and use.name == key[1] for use in self._node.uses.values())
