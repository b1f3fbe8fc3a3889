"""Rolling upgrades under load: `python -m tests.faults.upgrades --count 100 --seed 1` (R5 in the plan's reference).

Each time a new process starts, becomes ready, lives beside the old one for a random while, and the old one is told to stop. Pods
come and go all the time, and some claims stay. No call may fail, nothing that is prepared may be lost, the slices are whole at every
moment, and none is written, as nothing changed.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import click

from dra_driver.model.kinds import NODE
from dra_driver.sandbox.apiserver.server import ApiServer
from tests.faults.load import Load
from tests.process.conftest import NODE_NAME, Cluster, Plugin, eventually
from tests.process.rollout import Kubelet, running_kubelet, watched_slices

MACHINE = "8xh100-80"
GPUS = [f"gpu-0000-{bus}-00-0" for bus in ("1b", "43", "52", "61", "9d", "c3", "d1", "df")]
HELD = [GPUS[0], *(f"{GPUS[1]}-mig-1g-10gb-{start}" for start in (4, 5, 6))]
COMING_AND_GOING = [
    *(f"{GPUS[1]}-mig-1g-10gb-{start}" for start in (0, 1)),
    f"{GPUS[2]}-mig-3g-40gb-0",
    GPUS[3],
    f"{GPUS[4]}-mig-1g-10gb-6",
    GPUS[5],
]
BOTH_ALIVE_S = (0.0, 1.0)


@dataclass
class Outcome:
    """What was seen; `violations` is what must be empty."""

    upgrades: int = 0
    ready_s: list[float] = field(default_factory=list)
    calls_s: list[float] = field(default_factory=list)
    writes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.upgrades} upgrades, {len(self.calls_s)} calls (p50 {median(self.calls_s) * 1e3:.1f} ms, "
            f"p99 {quantiles(self.calls_s, n=100)[-1] * 1e3:.0f} ms), new process ready after {median(self.ready_s):.2f} s, "
            f"{sum(self.writes.values())} slice writes, {len(self.violations)} violations"
        )


@dataclass
class Scene:
    """A node in a cluster, and the processes that follow one another there."""

    folder: Path
    cluster: Cluster
    kubelet: Kubelet
    started: list[Plugin] = field(default_factory=list)

    async def start(self) -> Plugin:
        """The next process, ready as its pod would be."""
        uid = f"pod-{len(self.started)}"
        plugin = Plugin(self.folder, self.cluster.server.url, MACHINE, pod_uid=uid)
        self.started.append(plugin)
        plugin.process = await plugin.launch(metrics_address="127.0.0.1:0")
        await eventually(plugin.is_ready, within_s=30)
        return plugin


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """Nothing of it is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="dra-"))
    server = ApiServer()
    await server.start()
    cluster = Cluster(server)
    await cluster.api.create(NODE, {"metadata": {"name": NODE_NAME}})
    (folder / "registry").mkdir()
    try:
        async with running_kubelet(folder / "registry") as kubelet:
            scene = Scene(folder, cluster, kubelet)
            try:
                yield scene
            finally:
                for plugin in scene.started:
                    await plugin.stop(signal.SIGKILL)
    finally:
        await server.stop()
        shutil.rmtree(folder)


async def upgrade(count: int, seed: int) -> Outcome:
    """Upgrade so often; `seed` decides what the load does and how long both processes live."""
    rng, outcome = random.Random(seed), Outcome()
    async with scene() as stage:
        current = await stage.start()
        load = Load(stage.kubelet, stage.cluster, current, rng)
        held = [await load.hold(device) for device in HELD]
        with watched_slices(stage.cluster.server.store) as writes:
            loading = asyncio.create_task(load.run(COMING_AND_GOING))
            for _ in range(count):
                current = await _replace(stage, current, rng, outcome)
                for claim, told in held:
                    await load.check(claim, told)
            load.stop()
            await loading
        for claim, _ in held:
            await stage.kubelet.unprepare(claim)
        outcome.violations += load.failures + load.undone + current.leftovers()
    outcome.writes, outcome.calls_s = writes.kinds, load.calls_s
    outcome.violations += [f"{writes.gaps} moments without whole slices"] * bool(writes.gaps)
    outcome.violations += [f"slices were written: {writes.kinds}"] * bool(writes.kinds)
    return outcome


async def _replace(stage: Scene, old: Plugin, rng: random.Random, outcome: Outcome) -> Plugin:
    """One upgrade: the successor, once the old process has ended."""
    began_s = time.monotonic()
    successor = await stage.start()
    outcome.ready_s.append(time.monotonic() - began_s)
    await asyncio.sleep(rng.uniform(*BOTH_ALIVE_S))
    if code := await old.stop():
        outcome.violations.append(f"a process ended with {code}")
    outcome.upgrades += 1
    return successor


@click.command()
@click.option("--count", default=100, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=1, show_default=True)
def main(count: int, seed: int) -> None:
    """Exit code 1 where anything was lost."""
    outcome = asyncio.run(upgrade(count, seed))
    click.echo(f"seed {seed}: {outcome}")
    for violation in outcome.violations:
        click.echo(f"  {violation}")
    sys.exit(bool(outcome.violations))


if __name__ == "__main__":
    main()
