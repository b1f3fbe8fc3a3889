"""How long the real scheduler takes for a pod on a node with 8 x H100, all forms published: `python -m tests.bench.scheduler_time`.

A second scheduler runs beside the control plane's, with a profile of its own, so that its metrics can be read and only
our pods count. The table goes into docs/dev/scheduler.md.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from ssl import CERT_NONE, create_default_context
from typing import Any

import yaml

import deviceclasses
from dra_driver.config.machine import load_machine
from dra_driver.kube.codec import slice_to_json
from dra_driver.kube.rest import RestApi
from dra_driver.model.kinds import (
    DEVICE_CLASS,
    NODE,
    POD,
    RESOURCE_CLAIM,
    RESOURCE_SLICE,
)
from dra_driver.ports import JsonObject
from dra_driver.rules.pool_diff import diff_pool
from dra_driver.rules.publish import PublishMode, desired_pool
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from tests.cluster.controlplane import ControlPlane, running_control_plane
from tests.cluster.processes import free_ports, running, wait_until
from tests.cluster.programs import MINORS
from tests.cluster.waiting import SERVICE_ACCOUNT

NODE_NAME = "h100"
SCHEDULER = "bench"
SPACE = "default"
_ATTEMPTS = re.compile(
    r'^scheduler_scheduling_attempt_duration_seconds_count\{.*result="(\w+)".*\} (\S+)$',
    re.MULTILINE,
)
_DECISIONS = re.compile(
    r"^scheduler_scheduling_algorithm_duration_seconds_(sum|count) (\S+)$", re.MULTILINE
)
"""How long it took to choose a node, or to find that there is none; without writing, which the client limits."""


def whole(count: int = 1) -> JsonObject:
    """A request for GPUs."""
    return {"deviceClassName": "nvidia-gpu.dra-driver.dev", "count": count}


def partition(profile: str, count: int = 1) -> JsonObject:
    """A request for MIG instances."""
    expression = f'device.attributes["gpu.dra-driver.dev"].profile == "{profile}"'
    selectors = [{"cel": {"expression": expression}}]
    return {
        "deviceClassName": "nvidia-mig.dra-driver.dev",
        "count": count,
        "selectors": selectors,
    }


def impossible() -> JsonObject:
    """A request that no device meets."""
    expression = 'device.capacity["gpu.dra-driver.dev"].memory.compareTo(quantity("1Ti")) >= 0'
    return whole() | {"selectors": [{"cel": {"expression": expression}}]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`pods` pods, each with one claim of `requests`, after `filled` pods with a 1g.10gb each; `fits`: all are placed."""

    what: str
    requests: Sequence[JsonObject]
    pods: int
    fits: bool
    filled: int = 0


SCENARIOS = (
    Scenario(what="8 pods, a whole GPU each", requests=[whole()], pods=8, fits=True),
    Scenario(what="56 pods, a 1g.10gb each", requests=[partition("1g.10gb")], pods=56, fits=True),
    Scenario(what="no device matches, empty node", requests=[impossible()], pods=20, fits=False),
    Scenario(
        what="no device matches, full node", requests=[impossible()], pods=20, fits=False, filled=56
    ),
    Scenario(
        what="a 1g.10gb, full node", requests=[partition("1g.10gb")], pods=20, fits=False, filled=56
    ),
    Scenario(what="a whole GPU, full node", requests=[whole()], pods=20, fits=False, filled=56),
    Scenario(what="9 GPUs in one request", requests=[whole(9)], pods=5, fits=False),
    Scenario(what="7 GPUs in 7 requests", requests=[whole()] * 7, pods=1, fits=True),
    Scenario(what="9 GPUs in 9 requests", requests=[whole()] * 9, pods=1, fits=False),
    Scenario(
        what="25 x 2g.20gb in one request", requests=[partition("2g.20gb", 25)], pods=1, fits=False
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Attempts by result (`scheduled`, `unschedulable`, `error`), and the seconds that all of them took to decide."""

    attempts: Counter[str]
    seconds: float


@contextmanager
def running_scheduler(plane: ControlPlane) -> Iterator[str]:
    """A scheduler for pods that ask for it by name; the URL of its metrics."""
    port = free_ports(1)[0]
    settings = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": str(plane.kubeconfig_of("scheduler"))},
        "leaderElection": {"leaderElect": False},
        "profiles": [{"schedulerName": SCHEDULER}],
    }
    config = plane.root / "bench.yaml"
    config.write_text(yaml.safe_dump(settings))
    command: list[str | Path] = [
        plane.programs.scheduler,
        f"--config={config}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--authorization-always-allow-paths=/healthz,/metrics",
    ]
    log = plane.root / "bench.log"
    url = f"https://127.0.0.1:{port}"
    with running(command, log) as process:
        wait_until(lambda: _get(f"{url}/healthz") == "ok", process, log, within_s=60)
        yield f"{url}/metrics"


def read_tally(url: str) -> Tally:
    """The scheduler's attempts since it started."""
    text = _get(url)
    attempts = Counter({result: int(count) for result, count in _ATTEMPTS.findall(text)})
    return Tally(attempts=attempts, seconds=float(dict(_DECISIONS.findall(text)).get("sum", 0)))


def _get(url: str) -> str:
    context = create_default_context()
    context.check_hostname, context.verify_mode = False, CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=5, context=context) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


class Bench:
    """One node with 8 x H100, in a control plane."""

    def __init__(self, api: RestApi, metrics: str, root: Path) -> None:
        self._api = api
        self._metrics = metrics
        self._root = root
        self._pods = 0

    async def prepare(self) -> None:
        """Node, classes and slices."""
        status = {"allocatable": {"pods": "500"}}
        await self._api.create(NODE, {"metadata": {"name": NODE_NAME}, "status": status})
        for device_class in deviceclasses.load_all():
            await self._api.create(DEVICE_CLASS, device_class)
        machine = load_machine("8xh100-80")
        nvml = SimulatedNvml(machine, node=NODE_NAME, state_dir=self._root)
        inventory = discover(NvidiaBackend(nvml))
        pool = desired_pool(NODE_NAME, inventory, frozenset(), PublishMode.FULL, 64)
        for published in diff_pool(pool, []).writes:
            await self._api.create(RESOURCE_SLICE, slice_to_json(published))
        account = {"metadata": {"name": SCHEDULER}}
        await self._api.create(SERVICE_ACCOUNT, account, namespace=SPACE)
        await asyncio.sleep(2)

    async def measure(self, scenario: Scenario) -> str:
        """A line of the table; afterwards the node is empty."""
        filling = [await self._add([partition("1g.10gb")]) for _ in range(scenario.filled)]
        await self._until(filling, fits=True)
        before, start = read_tally(self._metrics), time.monotonic()
        names = [await self._add(scenario.requests) for _ in range(scenario.pods)]
        await self._until(names, fits=scenario.fits)
        taken_s = time.monotonic() - start
        tally = read_tally(self._metrics)
        attempts = tally.attempts - before.attempts
        each_ms = (tally.seconds - before.seconds) / attempts.total() * 1000
        outcome = ", ".join(f"{number} {result}" for result, number in attempts.items())
        await self._clear([*filling, *names])
        return f"| {scenario.what} | {outcome} | {each_ms:,.1f} ms | {taken_s:.1f} s |"

    async def _add(self, requests: Sequence[JsonObject]) -> str:
        self._pods += 1
        name = f"pod-{self._pods}"
        named = [{"name": f"r{i}", "exactly": r} for i, r in enumerate(requests)]
        claim: JsonObject = {
            "metadata": {"name": name},
            "spec": {"devices": {"requests": named}},
        }
        await self._api.create(RESOURCE_CLAIM, claim, namespace=SPACE)
        pod: JsonObject = {
            "metadata": {"name": name},
            "spec": {
                "schedulerName": SCHEDULER,
                "serviceAccountName": SCHEDULER,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "main", "image": "none.test/none"}],
                "resourceClaims": [{"name": "gpu", "resourceClaimName": name}],
            },
        }
        await self._api.create(POD, pod, namespace=SPACE)
        return name

    async def _until(self, names: Sequence[str], *, fits: bool) -> None:
        wanted = "True" if fits else "False"
        async with asyncio.timeout(120):
            while True:
                pods = (await self._api.list(POD, namespace=SPACE)).items
                found = {pod["metadata"]["name"]: _scheduled(pod) for pod in pods}
                if all(found.get(name) == wanted for name in names):
                    return
                await asyncio.sleep(0.05)

    async def _clear(self, names: Sequence[str]) -> None:
        for name in names:
            await self._api.delete(POD, name, namespace=SPACE, grace_period_s=0)
            await self._api.delete(RESOURCE_CLAIM, name, namespace=SPACE)
        async with asyncio.timeout(60):
            while (await self._api.list(RESOURCE_CLAIM, namespace=SPACE)).items:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


def _scheduled(pod: Mapping[str, Any]) -> str | None:
    conditions = pod.get("status", {}).get("conditions", [])
    return next((c["status"] for c in conditions if c["type"] == "PodScheduled"), None)


async def run(plane: ControlPlane, metrics: str) -> None:
    """Print the table."""
    async with RestApi(plane.endpoint, component="bench") as api:
        bench = Bench(api, metrics, plane.root)
        await bench.prepare()
        _say("| pods | attempts | each decided in | all done after |\n|---|---|---|---|")
        for scenario in SCENARIOS:
            _say(await bench.measure(scenario))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(minor: str) -> None:
    """On the control plane of that minor."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_control_plane(minor, Path(folder)) as plane,
        running_scheduler(plane) as url,
    ):
        asyncio.run(run(plane, url))


if __name__ == "__main__":
    main(*(sys.argv[1:] or MINORS[-1:]))
