"""A driver under test: its process, its folders, its API server, and what the benchmark does with it."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dra_driver.ports import JsonObject
from tests.bench import procfs
from tests.bench.objects import Device, new_claim, reference_of
from tests.bench.programs import Api, Kubelet
from tests.bench.recipes import Recipe

_START_LIMIT_S = 60.0
_LOOK_AGAIN_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Claims prepared and released again: each prepare's time, and what all that cost."""

    each_s: Sequence[float]
    wall_s: float
    errors: Sequence[str]
    cpu_s: float
    """Of the driver, for every prepare and unprepare."""
    prepare_requests: Counter[str]
    unprepare_requests: Counter[str]

    @property
    def rate(self) -> float:
        """Claims prepared in a second."""
        return len(self.each_s) / self.wall_s

    @property
    def cpu_per_operation_s(self) -> float:
        """A claim is two operations."""
        return self.cpu_s / (2 * len(self.each_s))


class Contender:
    """`start` it first. `hold` sets how many claims stay prepared while others are measured."""

    def __init__(self, recipe: Recipe, folder: Path, api: Api, kubelet: Kubelet) -> None:
        self.name = recipe.name
        self.api = api
        self.held: list[JsonObject] = []
        self._recipe = recipe
        self.folder = folder
        self._kubelet = kubelet
        self._process: asyncio.subprocess.Process | None = None
        self._devices: dict[str, list[Device]] = {}
        self._turn = itertools.count()
        for name in ("data", "registry", "cdi"):
            (folder / name).mkdir()

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def registry(self) -> str:
        """The folder in which a kubelet finds it."""
        return str(self.folder / "registry")

    @property
    def log(self) -> Path:
        """What its processes have printed."""
        return self.folder / "log"

    async def launch(self) -> float:
        """Start a process and do not wait for anything; when (CLOCK_MONOTONIC) that was."""
        command = self._recipe.command_for(self.folder, self.api.url)
        with self.log.open("ab") as output:
            began_s = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(
                *command, stdout=output, stderr=output
            )
        return began_s

    async def start(self) -> float:
        """Start it, wait until all it has is published, and say how long that took."""
        began_s = await self.launch()
        assert self._process is not None
        async with asyncio.timeout(_START_LIMIT_S):
            while not is_complete((report := await self.api.report())["slices"]):
                if self._process.returncode is not None:
                    raise RuntimeError(f"{self.name} has ended:\n{self.log.read_text()}")
                await asyncio.sleep(_LOOK_AGAIN_S)
        await self._kubelet.ask(do="forget", registry=self.registry)
        self._devices = {}
        for item in report["slices"]:
            self._sort(item["spec"])
        published_at_s: float = report["last_slice_write_s"]
        return published_at_s - began_s

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """End its process."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()

    def devices(self, kind: str) -> Sequence[Device]:
        """What it has published of that kind, in the order of its slices."""
        return self._devices[kind]

    async def new_claims(self, count: int, kind: str = "") -> list[JsonObject]:
        """Claims on its devices of that kind, in turn; the default kind may be held by any number of claims."""
        kind = kind or self._recipe.shared
        devices = self.devices(kind)
        chosen = [devices[next(self._turn) % len(devices)] for _ in range(count)]
        return await self.claims_on(chosen, admin_access=kind == self._recipe.shared)

    async def claims_on(
        self, devices: Sequence[Device], *, admin_access: bool = False
    ) -> list[JsonObject]:
        """A claim for each of these devices."""
        claims = [new_claim(device, admin_access=admin_access) for device in devices]
        await self.api.add_claims(claims)
        return claims

    async def call(
        self, verb: str, claims: Iterable[JsonObject], at_once: int = 1
    ) -> tuple[JsonObject, Counter[str]]:
        """What the kubelet says of the calls, and the API requests that they led to."""
        references = [reference_of(claim) for claim in claims]
        before = await self.api.requests()
        answer = await self._kubelet.ask(
            do="call", registry=self.registry, verb=verb, claims=references, at_once=at_once
        )
        return answer, await self.api.requests() - before

    async def hold(self, count: int) -> None:
        """Exactly so many claims are prepared from now on, all of them in `held`."""
        if count < len(self.held):
            released, self.held = self.held[count:], self.held[:count]
            await self._must("unprepare", released)
        elif count > len(self.held):
            claims = await self.new_claims(count - len(self.held))
            await self._must("prepare", claims)
            self.held += claims

    async def burst(self, count: int, at_once: int, kind: str = "") -> Burst:
        """Prepare so many new claims, and release them."""
        return await self.cycle(await self.new_claims(count, kind), at_once)

    async def cycle(self, claims: Sequence[JsonObject], at_once: int) -> Burst:
        """Prepare these claims, and release them."""
        before_s = procfs.cpu_s(self.pid)
        prepared, prepare_requests = await self.call("prepare", claims, at_once)
        released, unprepare_requests = await self.call("unprepare", claims, at_once)
        return Burst(
            each_s=prepared["each_s"],
            wall_s=prepared["wall_s"],
            errors=prepared["errors"] + released["errors"],
            cpu_s=procfs.cpu_s(self.pid) - before_s,
            prepare_requests=prepare_requests,
            unprepare_requests=unprepare_requests,
        )

    async def _must(self, verb: str, claims: Sequence[JsonObject]) -> None:
        answer, _ = await self.call(verb, claims, at_once=16)
        if answer["errors"]:
            raise RuntimeError(f"{self.name} cannot {verb}: {answer['errors'][0]}")

    def _sort(self, spec: JsonObject) -> None:
        for published in spec.get("devices", ()):
            device = Device(
                driver=spec["driver"], pool=spec["pool"]["name"], name=published["name"]
            )
            self._devices.setdefault(self._recipe.kind_of(published), []).append(device)


def is_complete(slices: Sequence[JsonObject]) -> bool:
    """Whether something is published, and every pool in its newest generation has all its slices."""
    pools: dict[str, list[JsonObject]] = {}
    for item in slices:
        pool = item["spec"]["pool"]
        pools.setdefault(pool["name"], []).append(pool)
    return bool(pools) and all(_has_all(found) for found in pools.values())


def _has_all(found: Sequence[JsonObject]) -> bool:
    newest = max(pool["generation"] for pool in found)
    current = [pool for pool in found if pool["generation"] == newest]
    return bool(len(current) == current[0]["resourceSliceCount"])
