"""Prepare, unprepare, crash, restart, force-delete, in orders that hypothesis thinks of: the plugin does what a model says.

The model is which claims are prepared, and what each holds. Every rule runs to its end, over a real folder.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from dra_driver.model.errors import ClaimReplaced, DeviceHeld, DraError, NotFound
from kubelet_plugin.claims import REPLY_MARGIN_S
from kubelet_plugin.witnesses import CONFIRM_S
from tests.faults.interleaved_node import SLICES, InterleavedNode, Use
from tests.faults.virtual_time import VirtualLoop
from tests.kubelet_plugin.conftest import machine_of, ref

T = TypeVar("T")
MACHINE = machine_of("H100-SXM5-80GB", 1)


class ClaimLife(RuleBasedStateMachine):
    """One node with one GPU, and any number of claims."""

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp(prefix="dra-"))
        dice = random.Random(0)
        self._runner = asyncio.Runner(loop_factory=lambda: VirtualLoop(dice))
        self._node = InterleavedNode(self._folder, MACHINE, dice)
        self._held: dict[str, Use] = {}
        self._run(self._start())

    def teardown(self) -> None:
        self._run(self._node.die())
        self._runner.close()
        shutil.rmtree(self._folder)

    @rule(target=claims, kind=st.sampled_from(sorted(SLICES)), name=st.sampled_from("abc"))
    def allocate(self, kind: str, name: str) -> Use:
        """A new claim; one of that name that was there before is deleted by force."""
        return self._node.allocate(name, kind)

    @rule(use=claims)
    def force_delete(self, use: Use) -> None:
        """It stays held here until the kubelet gives it back, or it is surely gone."""
        if self._node.is_known(use):
            del self._node.api.claims[use.name]

    @rule(use=claims)
    def prepare(self, use: Use) -> None:
        """As it was, if it is held already; refused if it is gone, or if another one holds what it needs."""
        before = use.devices
        answer = self._run(self._prepared(use))
        if use.uid in self._held:
            assert answer == before
        elif not self._node.is_known(use):
            assert isinstance(
                answer, ClaimReplaced if use.name in self._node.api.claims else NotFound
            )
        elif any(SLICES[use.kind] & SLICES[other.kind] for other in self._held.values()):
            assert isinstance(answer, DeviceHeld)
        else:
            assert answer == use.devices != ()
            self._held[use.uid] = use

    @rule(use=claims)
    def unprepare(self, use: Use) -> None:
        """Always succeeds, held or not."""
        self._run(self._unprepared(use))
        self._held.pop(use.uid, None)

    @rule()
    def restart(self) -> None:
        """Nothing is forgotten, and nothing else appears."""
        self._run(self._restarted())

    @rule(use=claims, prepare=st.booleans(), turns=st.integers(0, 60))
    def crash(self, use: Use, turns: int, *, prepare: bool) -> None:
        """In the middle of a call: the claim is whole or gone, and what was promised before is still there."""
        was_held = use.uid in self._held
        if prepare and not (was_held or self._node.is_known(use)):
            return
        call = self._node.prepare if prepare else self._node.unprepare
        self._run(self._crashed(lambda: call(use), turns))
        is_held = use.uid in self._node.plugin.state.records
        if prepare:
            assert is_held or not was_held
        else:
            assert was_held or not is_held
        self._held.pop(use.uid, None)
        if is_held:
            preparation = self._node.plugin.state.records[use.uid].preparation
            assert preparation is not None
            use.devices = preparation.devices
            self._held[use.uid] = use

    @rule(use=claims)
    def lose(self, use: Use) -> None:
        """The claim is gone and its pod too, and the kubelet has forgotten both: it is released, and nothing else is."""
        if any(other is not use and other.name == use.name for other in self._held.values()):
            return  # the kubelet knows claims in use by name alone
        self.force_delete(use)
        use.devices = None
        self._run(self._reconciled())
        self._held.pop(use.uid, None)

    @invariant()
    def what_is_there_is_what_the_model_says(self) -> None:
        """Records, CDI files and instances are exactly those of the claims that are held."""
        self._node.check(settled=True)
        assert self._node.broken == []
        assert self._node.plugin.state.records.keys() == self._held.keys()
        assert self._node.plugin.store.records().keys() == self._held.keys()
        partitions = [
            grant
            for record in self._node.plugin.state.records.values()
            for grant in record.grants
            if grant.profile
        ]
        assert len(self._node.plugin.instances()) == len(partitions)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    async def _start(self) -> None:
        await self._node.start()
        await asyncio.sleep(10)  # by then it has looked at the hardware, and recovered

    async def _crashed(self, call: Callable[[], None], turns: int) -> None:
        call()
        for _ in range(turns):
            await asyncio.sleep(0)
        await self._restarted()

    async def _restarted(self) -> None:
        await self._node.die()
        await self._start()

    async def _prepared(self, use: Use) -> object:
        deadline = asyncio.get_running_loop().time() + REPLY_MARGIN_S + 1
        try:
            use.devices = await self._node.plugin.claims.prepare(ref(use.claim), deadline=deadline)
        except DraError as refusal:
            return refusal
        return use.devices

    async def _unprepared(self, use: Use) -> None:
        self._node.unprepare(use)
        await asyncio.wait(self._node.calls)

    async def _reconciled(self) -> None:
        for _ in range(2):
            await self._node.plugin.node.reconciler.look(list(self._held))
            await asyncio.sleep(CONFIRM_S)


ClaimLife.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
test_claims_live_as_the_model_says = ClaimLife.TestCase
