"""What was found of each GPU's health so far, and what therefore counts now (see `rules.health`)."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from dra_driver.model.health import Ailment, Condition
from dra_driver.model.slices import TaintEffect
from dra_driver.ports import Clock
from dra_driver.rules.health import History, conditions, follow
from kubelet_plugin.state import NodeState

log = structlog.get_logger(__name__)


class Casebook:
    """Keeps the state's conditions true. `on_broken`: the effect of what is broken."""

    def __init__(self, state: NodeState, clock: Clock, *, on_broken: TaintEffect) -> None:
        self._state = state
        self._clock = clock
        self._on_broken = on_broken
        self._histories: dict[str, History] = {}

    def note(self, address: str, found: Iterable[Ailment] | None) -> None:
        """A look at the GPU found these ailments, and no others; None where it did not tell: what is wrong is no less so, but nobody knows it to be well."""
        if found is None:
            if not self._state.conditions.get(address):
                self._state.observe_conditions(address, None)
            return
        now = self._clock.monotonic()
        history = follow(self._histories.get(address, {}), found, now)
        self._histories[address] = history
        self._tell(address, conditions(history, now, on_broken=self._on_broken))

    def forget(self, address: str) -> None:
        """The GPU is gone: what comes back was reset, or is another one."""
        self._histories.pop(address, None)
        self._state.observe_conditions(address, None)

    def _tell(self, address: str, current: tuple[Condition, ...]) -> None:
        before = {one.ailment for one in self._state.conditions.get(address, ())}
        for one in current:
            if one.ailment not in before:
                log.warning("a GPU is not well", gpu=address, why=one.ailment.message)
        self._state.observe_conditions(address, current)
