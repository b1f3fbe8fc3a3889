"""One simulated NVIDIA GPU, its plugin, and an administrator who cuts partitions behind the plugin's back.

What must hold follows from the hardware and the placement engine (`rules.partitions`) alone: whoever asks for what fits gets it,
whoever asks for what does not is refused, and nobody's partition is touched by another.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from dra_driver.model.device import CreateStage, Gpu, Instance, Partitioning, SetMode
from dra_driver.model.names import partition_name
from dra_driver.rules.forms import Sharing, all_forms, made_instances
from dra_driver.rules.partitions import Placed, fits, legal
from dra_driver.rules.publish import PublishMode, published_forms
from dra_driver.vendors.nvidia import simulated_smi
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from kubelet_plugin.claims import DEADLINE_S
from tests.faults.interleaved_node import InterleavedNode, Use
from tests.kubelet_plugin.conftest import NODE, POOL, machine_of
from tests.property.actions import Action
from tests.property.taking import cells, counters_suffice

T = TypeVar("T", bound=Any)
ADDRESS = "0000:1b:00.0"
SETTLED_S = 10
SHORT_S = 4


class MigLife:
    """Runs actions one after the other; AssertionError as soon as something is not as it must be.

    `splits` names the profile of parts of partitions that the plugin may offer, if any.
    """

    def __init__(
        self, folder: Path, model: str, mode: str, dice: random.Random, splits: tuple[str, ...] = ()
    ) -> None:
        machine = machine_of(model, 1, mode=mode)
        self._nvml = SimulatedNvml(machine, node=NODE, state_dir=folder / "hardware")
        self._admin = NvidiaBackend(self._nvml, splits=splits)
        self._forms = {
            form.name: form for form in all_forms(self._gpu) if form.sharing is not Sharing.MONITOR
        }
        self._node = InterleavedNode(
            folder,
            machine,
            dice,
            devices={name: (name,) for name in self._forms},
            slices={name: cells(form) for name, form in self._forms.items()},
            splits=splits,
        )
        self._numbers = count(1)
        self._held: dict[str, Use] = {}
        self._is_seen = True

    async def run(self, actions: list[Action]) -> None:
        """All of them, and at last everything is given back."""
        await self._start()
        for action in actions:
            await getattr(self, action.what)(action)
            self._check()
        for name in list(self._held):
            await self._give_back(name)
        self._check()
        assert set(self._gpu.instances) == {instance for _, instance in self._node.foreign}
        await self._node.die()

    async def take(self, action: Action) -> None:
        """A claim on what fits is served, at the latest once the plugin has seen what the administrator did."""
        name = _picked(self._possible(), action.pick)
        if name is None:
            return
        use = await self._ask(name)
        if not use.devices and not self._is_seen:
            await self._look()
            await self._call(lambda: self._node.prepare(use))
        assert use.devices, f"{name} fits and is refused: {use.refusal}"
        self._held[name] = use

    async def overreach(self, action: Action) -> None:
        """A claim on what does not fit is refused, and leaves nothing; with `flag` the process dies over it."""
        name = _picked(self._forms.keys() - self._possible(), action.pick)
        if name is None:
            return
        if action.flag:
            use = self._allocate(name)
            await self._die_in(lambda: self._node.prepare(use), action.turns)
            assert not self._is_prepared(use)
        else:
            use = await self._ask(name, SHORT_S)
            assert not use.devices, f"{name} does not fit and is given out"
        assert self._mode_is_settled(), "a mode was left pending"

    async def give_back(self, action: Action) -> None:
        """What a claim held is free; with `flag` the process dies over it, and it is held or free."""
        name = _picked(self._held, action.pick)
        if name is None:
            return
        if not action.flag:
            await self._give_back(name)
            return
        use = self._held[name]
        await self._die_in(lambda: self._node.unprepare(use), action.turns)
        if not self._is_prepared(use):
            del self._held[name]

    async def crash(self, action: Action) -> None:
        """A claim on what fits, and the process dies over it: the claim is prepared, or nothing of it is left."""
        name = _picked(self._possible(), action.pick)
        if name is not None:
            use = self._allocate(name)
            await self._die_in(lambda: self._node.prepare(use), action.turns)
            if self._is_prepared(use):
                self._held[name] = use

    async def intrude(self, action: Action) -> None:
        """The administrator makes a partition, with `flag` only its GPU instance; whether the plugin looks depends on `turns`."""
        placed = _picked(self._room(), action.pick)
        if placed is None or self._partitioning.mode != "mig":
            return
        if action.flag:
            change = CreateStage(
                gpu=ADDRESS,
                profile=placed.profile_name,
                placement=placed.placement,
                stage="gpu-instance",
            )
            self._admin.partition(change)
        else:
            start = placed.placement.start
            simulated_smi.create(self._admin, ADDRESS, placed.profile_name, start)
        (made,) = (one for one in self._gpu.instances if _placed(one) == placed)
        self._node.foreign += ((ADDRESS, made),)
        await self._look_sometimes(action)

    async def withdraw(self, action: Action) -> None:
        """The administrator destroys a partition of theirs that no claim has."""
        idle = {i for _, i in self._node.foreign if self._name(_placed(i)) not in self._held}
        gone = _picked({_placed(instance) for instance in idle}, action.pick)
        if gone is None:
            return
        simulated_smi.destroy(self._admin, ADDRESS, gone.placement.start)
        self._node.foreign = tuple(one for one in self._node.foreign if _placed(one[1]) != gone)
        await self._look_sometimes(action)

    async def switch(self, action: Action) -> None:
        """The administrator changes the mode of a GPU that nobody uses and that can be switched."""
        if self._held or self._gpu.instances or not self._partitioning.switchable:
            return
        mode = "whole" if self._partitioning.mode == "mig" else "mig"
        self._admin.partition(SetMode(gpu=ADDRESS, mode=mode))
        await self._look_sometimes(action)

    @property
    def _gpu(self) -> Gpu:
        return self._admin.read(ADDRESS)

    @property
    def _partitioning(self) -> Partitioning:
        partitioning = self._gpu.partitioning
        assert partitioning is not None
        return partitioning

    def _possible(self) -> set[str]:
        """What a new claim may have now, by the hardware's own rules."""
        here, partitioning = self._layout(), self._partitioning
        if here is None:
            return set()
        names = {self._name(placed) for placed in (*self._room(), *self._parts(here))}
        if not here and (partitioning.mode == partitioning.whole_mode or partitioning.switchable):
            names |= {name for name, form in self._forms.items() if form.profile is None}
        complete = {_placed(i) for _, i in self._node.foreign if i.complete}
        return names | ({self._name(placed) for placed in complete} - self._held.keys())

    def _room(self) -> set[Placed]:
        """What the placement engine says can be made beside what there is."""
        here, partitioning = self._layout(), self._partitioning
        if here is None or not (partitioning.mode == "mig" or partitioning.switchable):
            return set()
        assert legal(partitioning, here)
        return set(fits(partitioning, here))

    def _parts(self, here: set[Placed]) -> set[Placed]:
        """The parts of partitions that can be made, in partitions that are there for parts or can be."""
        partitioning = self._partitioning
        if partitioning.split is None or not (
            partitioning.mode == "mig" or partitioning.switchable
        ):
            return set()
        parts = {Placed(partitioning.split.name, place) for place in partitioning.split.placements}
        return {part for part in parts - here if legal(partitioning, {*here, part})}

    def _layout(self) -> set[Placed] | None:
        """All partitions that are held or somebody else's; None where a claim has the whole GPU."""
        placed = {_placed(instance) for _, instance in self._node.foreign}
        for name in self._held:
            form = self._forms[name]
            if form.profile is None or form.placement is None:
                return None
            placed.add(Placed(form.profile.name, form.placement))
        return placed

    def _name(self, placed: Placed) -> str:
        profile = self._partitioning.profile(placed.profile_name)
        assert profile is not None
        return partition_name(ADDRESS, profile, placed.placement)

    def _check(self) -> None:
        self._node.check(settled=True)
        assert self._node.broken == []
        if self._is_seen:
            assert self._published() == self._possible()

    def _published(self) -> set[str]:
        """What the scheduler can still give out: published, and its counters suffice beside what is allocated."""
        state = self._node.plugin.state
        seen = state.inventories[POOL].gpu(ADDRESS)
        assert seen is not None
        published = published_forms(seen, made_instances(state.records.values()), PublishMode.FULL)
        held = [self._forms[name] for name in self._held]
        return {
            form.name
            for form in published
            if form.name in self._forms.keys() - self._held.keys()
            if counters_suffice([*held, form])
        }

    def _mode_is_settled(self) -> bool:
        handle = self._nvml.gpu_by_address(ADDRESS)
        current, pending = self._nvml.mig_mode(handle)
        return current == pending

    def _allocate(self, name: str) -> Use:
        return self._node.allocate(f"claim-{next(self._numbers)}", name)

    async def _ask(self, name: str, within_s: float = DEADLINE_S) -> Use:
        use = self._allocate(name)
        await self._call(lambda: self._node.prepare(use, within_s))
        return use

    async def _give_back(self, name: str) -> None:
        use = self._held.pop(name)
        await self._call(lambda: self._node.unprepare(use))
        assert use.is_released

    async def _call(self, call: Callable[[], None]) -> None:
        call()
        await asyncio.wait(self._node.calls)

    async def _die_in(self, call: Callable[[], None], turns: int) -> None:
        """The process dies that many turns of the loop after the call; the next one finds what it left.

        Nothing is unseen then: an instance exactly where a dead process was making one counts as made by it, whoever made it.
        """
        await self._look()
        call()
        for _ in range(turns):
            await asyncio.sleep(0)
        await self._node.die()
        self._node.check(settled=False)
        await self._start()

    def _is_prepared(self, use: Use) -> bool:
        """What became of a claim in whose call the process died; the kubelet learns it by its next call."""
        record = self._node.plugin.state.records.get(use.uid)
        use.devices = record.preparation.devices if record and record.preparation else None
        return record is not None

    async def _start(self) -> None:
        await self._node.start()
        await asyncio.sleep(SETTLED_S)
        self._is_seen = True

    async def _look(self) -> None:
        await self._node.plugin.node.survey.look()
        self._is_seen = True

    async def _look_sometimes(self, action: Action) -> None:
        self._is_seen = False
        if action.turns % 2:
            await self._look()


def _placed(instance: Instance) -> Placed:
    return Placed(instance.profile, instance.placement)


def _picked(choices: Iterable[T], pick: int) -> T | None:
    """One of them, the same for the same choices."""
    ordered = sorted(choices)
    return ordered[pick % len(ordered)] if ordered else None
