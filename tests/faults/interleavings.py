"""Random orders of everything that can happen to six claims that want one GPU (bar R3).

    python -m tests.faults.interleavings --count 10000 --seed 1

Calls overlap, are cancelled and come twice; claims are deleted by force and made anew under their names; the process dies anywhere
between two of its awaits. Each case is one seed, and its own repetition: `--seed S --count 1`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from tests.faults.interleaved_node import DEVICES, InterleavedNode, Use
from tests.faults.virtual_time import run
from tests.kubelet_plugin.conftest import machine_of

CLAIMS = 6
ACTIONS = 30
PAUSES_S = (0, 0, 0, 0.01, 1, 4, 12, 50)
MACHINE = machine_of("H100-SXM5-80GB", 1)


class Schedule:
    """One random order, on one node."""

    def __init__(self, node: InterleavedNode, dice: random.Random) -> None:
        self._node = node
        self._dice = dice
        self._current = [
            node.allocate(f"claim-{number}", dice.choice(list(DEVICES))) for number in range(CLAIMS)
        ]

    async def run(self) -> None:
        """Everything, and the checks at its end."""
        actions: list[Callable[[Use], None]] = [
            *(self._prepare,) * 5,
            *(self._unprepare,) * 4,
            *(self._cancel,) * 2,
            self._delete,
            self._replace,
        ]
        await self._node.start()
        for _ in range(ACTIONS):
            if self._dice.random() < 0.06:
                await self._restart()
            self._dice.choice(actions)(self._dice.choice(self._current))
            await asyncio.sleep(self._dice.choice(PAUSES_S))
        await self._settle()

    def _prepare(self, use: Use) -> None:
        if self._node.is_known(use) or use.devices:
            self._node.prepare(use, self._dice.choice((3, 10, 45)))

    def _unprepare(self, use: Use) -> None:
        self._node.unprepare(use)

    def _cancel(self, _: Use) -> None:
        calls = sorted(self._node.calls, key=lambda task: task.get_name())
        if calls:
            self._dice.choice(calls).cancel()

    def _delete(self, use: Use) -> None:
        if self._node.is_known(use):
            del self._node.api.claims[use.name]

    def _replace(self, use: Use) -> None:
        number = self._current.index(use)
        self._current[number] = self._node.allocate(use.name, self._dice.choice(list(DEVICES)))

    async def _restart(self) -> None:
        await self._node.die()
        self._node.check(settled=False)
        await self._node.start()

    async def _settle(self) -> None:
        """All calls end; the next process finds everything whole; all is given back without the API server, and is free."""
        node = self._node
        if node.calls:
            await asyncio.wait(node.calls)
        await node.plugin.claims.finish_calls()
        await self._restart()
        await asyncio.sleep(60)
        node.check(settled=True)
        node.api.unavailable = True
        for _ in range(2):
            for use in list(node.uses.values()):
                node.unprepare(use)
            await asyncio.wait(node.calls)
            node.check(settled=True)
        node.api.unavailable = False
        last = node.allocate("last", "whole")
        node.prepare(last)
        await asyncio.wait(node.calls)
        if not last.devices:
            node.broken.append(
                f"liveness: nobody holds the GPU, and nobody gets it: {last.refusal}"
            )
        node.check(settled=True)
        await node.die()


def run_case(seed: int) -> tuple[list[str], int]:
    """What was wrong, and how many calls succeeded."""
    random.seed(seed)
    folder = Path(tempfile.mkdtemp(prefix="dra-"))
    try:
        node = InterleavedNode(folder, MACHINE, random.Random(seed))

        async def main() -> None:
            await Schedule(node, random.Random(seed + 1)).run()

        run(main(), node.dice)
    finally:
        shutil.rmtree(folder)
    return node.broken, node.answers


def main() -> int:
    """Run the cases; 1 if anything was wrong."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    asked = options.parse_args()
    silence = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=silence)
    began, answers, wrong = time.monotonic(), 0, 0
    for seed in range(asked.seed, asked.seed + asked.count):
        broken, answered = run_case(seed)
        answers += answered
        if broken:
            wrong += 1
            sys.stdout.write(f"seed {seed}:\n  " + "\n  ".join(broken) + "\n")
            sys.stdout.flush()
    took_s = time.monotonic() - began
    sys.stdout.write(
        f"{asked.count} interleavings from seed {asked.seed}: {wrong} wrong, {answers} calls succeeded, {took_s:.0f} s\n"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
