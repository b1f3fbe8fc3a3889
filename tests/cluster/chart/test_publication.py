"""What the plugin publishes is accepted by real API servers, written with exactly the chart's rights."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dra_driver.kube.codec import slice_from_json
from dra_driver.kube.rest import RestApi
from dra_driver.model.kinds import EVENT, RESOURCE_SLICE
from dra_driver.ports import JsonObject
from dra_driver.rules.publish import LIMITED_ANNOTATION
from tests.cluster.controlplane import ControlPlane
from tests.cluster.processes import running
from tests.cluster.release import Release, installed, node_object
from tests.cluster.waiting import eventually

NODE_NAME = "node-a"
COUNTERS_SINCE = (1, 36)
WITH_COUNTERS = {
    "8xh100-80": 8 * 27,
    "8xa100-80": 8 * 2,
    "8xa100-40": 8 * 26,
    "4xa30": 4 * 14,
    "8xmi300x": 8 * 2,
}
"""How many devices are published: per GPU its placements, itself (where its mode can change) and its monitor."""
WITHOUT_COUNTERS = {
    "8xh100-80": 8,
    "8xa100-80": 8,
    "8xa100-40": 0,
    "4xa30": 0,
    "8xmi300x": 8,
}
"""Only what exists: a GPU in MIG mode without instances is nothing. Without taints there are no monitors."""


@pytest.fixture
async def release(control_plane: ControlPlane, api: RestApi) -> AsyncIterator[Release]:
    """The chart, in a cluster with a node."""
    async with node_object(api, NODE_NAME), installed(control_plane, api) as release:
        yield release


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, for sockets."""
    path = Path(tempfile.mkdtemp(prefix="dra-"))
    (path / "registry").mkdir()
    yield path
    shutil.rmtree(path)


@contextmanager
def running_plugin(folder: Path, machine: str, access: dict[str, str]) -> Iterator[Path]:
    """The plugin while the block runs; the file with what it says."""
    settings = {
        "node-name": NODE_NAME,
        "data-dir": folder / "data",
        "registry-dir": folder / "registry",
        "cdi-dir": folder / "cdi",
        "simulation-dir": folder / "hardware",
        "machine": machine,
        **access,
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    log = folder / "log"
    with running([sys.executable, "-m", "kubelet_plugin", "run", *flags], log):
        yield log


async def stored(api: RestApi) -> list[JsonObject]:
    """All slices of the node."""
    selectors = {"fieldSelector": f"spec.nodeName={NODE_NAME}"}
    return list((await api.list(RESOURCE_SLICE, selectors=selectors)).items)


@pytest.mark.parametrize(
    "machine", WITH_COUNTERS, ids=lambda text: text.rpartition("name: ")[2].split()[0]
)
async def test_every_machine_is_accepted_and_written_once(
    release: Release, api: RestApi, folder: Path, machine: str
) -> None:
    """The pool is complete; a second plugin finds nothing to write; no request was refused for want of rights."""
    access = await release.access_of(NODE_NAME)

    async def complete() -> bool:
        slices = [slice_from_json(item) for item in await stored(api)]
        return bool(slices) and len(slices) == slices[0].pool.slice_count

    with running_plugin(folder, machine, access) as log:
        await eventually(complete)
        first = await stored(api)
    with running_plugin(folder, machine, access):
        await eventually(lambda: log.read_text().count('"whether counters are kept"') == 2)
        await asyncio.sleep(2)  # nothing marks the moment when nothing was written
    assert await stored(api) == first
    devices = [one for item in first for one in item["spec"].get("devices") or ()]
    counts = WITH_COUNTERS if release.plane.version >= COUNTERS_SINCE else WITHOUT_COUNTERS
    assert len(devices) == counts[machine]
    said = [json.loads(line) for line in log.read_text().splitlines()]
    odd = [line for line in said if line["level"] not in {"info", "debug"}]
    if release.plane.version < COUNTERS_SINCE:
        odd = [line for line in odd if line["event"] != "partitions are not published"]
    assert not odd


async def test_an_event_says_that_partitions_are_missing(
    release: Release, api: RestApi, folder: Path
) -> None:
    """On the node, once, and on each slice, where the API server drops counters; nowhere else."""
    before = await events(api)
    limited = release.plane.version < COUNTERS_SINCE
    with running_plugin(folder, "8xh100-80", await release.access_of(NODE_NAME)):
        await eventually(lambda: has_slices(api))
        await eventually(lambda: has_events(api, len(before) + limited))
    notes = [item["metadata"].get("annotations", {}) for item in await stored(api)]
    assert {LIMITED_ANNOTATION in note for note in notes} == {limited}


async def has_slices(api: RestApi) -> bool:
    """Whether anything is published."""
    return bool(await stored(api))


async def has_events(api: RestApi, count: int) -> bool:
    """Whether that was said that often."""
    return len(await events(api)) == count


async def events(api: RestApi) -> list[JsonObject]:
    """What was said of missing partitions."""
    items = (await api.list(EVENT)).items
    return [one for one in items if one["reason"] == "PartitionsNotPublished"]
