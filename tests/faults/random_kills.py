"""R2: SIGKILL at random moments: `python -m tests.faults.random_kills --kills 2000 --operations 20000 --seed 1`.

The work is divided between two processes, each with a node of its own (`killed_lives`).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.faults.cluster import serving_cluster
from tests.faults.forks import Forks, forking
from tests.faults.killed_lives import MACHINE, KilledLives, Life
from tests.faults.node import Node, short_folder

PROCESSES: Final = 2


@dataclass(frozen=True, slots=True)
class Share:
    """So many kills on one node, with so many calls in each life."""

    number: int
    kills: int
    calls: int
    seed: int


async def kill_at_random(share: Share, forks: Forks) -> KilledLives:
    """Live and die; up to the first life in which something is wrong."""
    rng = Random(f"{share.seed}:{share.number}")
    with short_folder() as folder:
        async with serving_cluster(f"n{share.number}") as cluster:
            lives = KilledLives(Node(folder, MACHINE, cluster, forks), cluster)
            await lives.begin()
            for number in range(share.kills):
                await lives.live(
                    Life.drawn(rng, share.calls), f"share {share.number} life {number}"
                )
                if lives.wrongs:
                    return lives
            await lives.end()
            return lives


def run_share(share: Share) -> tuple[int, list[str]]:
    """As above, in a process of its own: how many calls were answered, and what was wrong."""
    logging.getLogger("aiohttp.server").disabled = True  # it tells of each client that is killed

    async def run() -> KilledLives:
        async with forking() as forks:
            return await kill_at_random(share, forks)

    lives = asyncio.run(run())
    return lives.answered, lives.wrongs


def main() -> int:
    """Run, and say what came of it; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.random_kills")
    parser.add_argument("--kills", type=int, default=2_000)
    parser.add_argument("--operations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    calls = options.operations // options.kills
    kills = options.kills // PROCESSES
    shares = [Share(number, kills, calls, options.seed) for number in range(PROCESSES)]
    began = time.monotonic()
    with ProcessPoolExecutor(PROCESSES) as pool:
        results = list(pool.map(run_share, shares))
    wrongs = [wrong for _, found in results for wrong in found]
    print(*wrongs, sep="\n")  # noqa: T201
    print(  # noqa: T201
        f"seed {options.seed}: {kills * PROCESSES} kills, {kills * PROCESSES * calls} operations, "
        f"{sum(answered for answered, _ in results)} of them answered, {len(wrongs)} violations, "
        f"{time.monotonic() - began:.0f} s"
    )
    return int(bool(wrongs))


if __name__ == "__main__":
    sys.exit(main())
