"""What claims really use, from simulated hardware through the plugin's process to a scrape, as whoever reclaims sees it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import aiohttp

from tests.process.conftest import Cluster, Plugin, eventually

WHOLE = "gpu-0000-1b-00-0"
SMALL = f"{WHOLE}-mig-1g-10gb-6"


async def scraped(plugin: Plugin) -> dict[str, float]:
    """The page's series; nothing before it is served."""
    found = re.findall(r"metrics and probes are served.* port=(\d+)", plugin.log)
    if not found:
        return {}
    url = f"http://127.0.0.1:{found[-1]}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        lines = (await answer.text()).splitlines()
    return {
        series: float(value)
        for series, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def labels_of(series: dict[str, float], name: str) -> list[dict[str, str]]:
    """The label sets of a family."""
    return [
        dict(re.findall(r'(\w+)="([^"]*)"', one)) for one in series if one.startswith(f"{name}{{")
    ]


def write_load(plugin: Plugin, device: str) -> None:
    """That device is half busy from now on."""
    file = plugin.folder / "hardware/nvidia/activity.json"
    new = Path(f"{file}.new")
    new.write_text(json.dumps({device: {"sm": [0.5], "memory_mib": 4096}}))
    new.replace(file)


async def test_sm_activity_by_claim(idle: Plugin, cluster: Cluster) -> None:
    """The join in docs/user/metrics.md finds the claim's figure, which goes when the claim goes."""
    idle.settings |= {"metrics-address": "127.0.0.1:0", "activity-interval-s": "0.05"}
    await idle.start()
    claim = await cluster.new_claim(SMALL)
    uid = claim["metadata"]["uid"]
    assert not (await idle.prepare(claim))[uid].error

    async def by_claim() -> dict[str, float]:
        """dra_device_sm_activity_ratio * on (gpu, partition) group_right dra_device_claim_info."""
        series = await scraped(idle)
        return {
            one["claim"]: series[ratio]
            for one in labels_of(series, "dra_device_claim_info")
            for ratio in [
                f'dra_device_sm_activity_ratio{{gpu="{one["gpu"]}",partition="{one["partition"]}"}}'
            ]
            if ratio in series
        }

    async def is_measured(ratio: float) -> bool:
        return (await by_claim()).get(claim["metadata"]["name"]) == ratio

    await eventually(lambda: is_measured(0.0))
    [info] = [one for one in labels_of(await scraped(idle), "dra_device_info") if one["partition"]]
    assert (info["partition"], info["profile"], info["pool"]) == (SMALL, "1g.10gb", "n/nvidia")
    write_load(idle, info["uuid"])
    await eventually(lambda: is_measured(0.5))
    assert not (await idle.unprepare(claim))[uid].error
    assert await by_claim() == {}


async def test_nothing_is_measured_where_it_is_off(idle: Plugin, cluster: Cluster) -> None:
    """The families are declared, and have no series."""
    idle.settings |= {"metrics-address": "127.0.0.1:0", "activity-interval-s": "0"}
    await idle.start()
    await eventually(cluster.is_published)

    async def is_served() -> bool:
        return bool(await scraped(idle))

    await eventually(is_served)
    assert not labels_of(await scraped(idle), "dra_device_power_watts")
