"""`dra doctor` beside a running plugin."""

from __future__ import annotations

import asyncio
import json
import sys

import deviceclasses
from dra_driver.model.kinds import DEVICE_CLASS
from tests.process.conftest import Cluster, Plugin


async def test_a_sandbox_is_healthy(plugin: Plugin, cluster: Cluster) -> None:
    """Everything is ok where the plugin publishes and the classes are there; nothing was changed by looking."""
    for document in deviceclasses.load_all():
        await cluster.api.create(DEVICE_CLASS, document)
    before = await cluster.slices()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dra_driver.cli.main", "doctor", "-o", "json"),
        *("--server", cluster.server.url),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert {one["status"] for one in json.loads(output)["findings"]} == {"ok"}
    assert await cluster.slices() == before
