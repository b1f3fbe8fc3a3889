"""What calls leave behind: numbers and Events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dra_driver.model.claim import ClaimRef
from dra_driver.model.errors import ClaimReplaced, DraError, VendorError
from dra_driver.ports import JsonObject
from kubelet_plugin.metric_families import table
from kubelet_plugin.metrics import (
    Levels,
    PluginMetrics,
    claims_by_state,
    devices_by_pool,
)
from kubelet_plugin.telemetry import Telemetry
from tests.kubelet_plugin.conftest import POOL, NewClaim, NodePlugin

CLAIM = ClaimRef(namespace="team", name="a", uid="00000000-0000-0000-0000-000000000001")
PAGE = Path(__file__).parents[2] / "docs/user/metrics.md"


@dataclass
class Notebook:
    """A recorder that keeps what it is told, and a clock that a test moves."""

    now: float = 100.0
    events: list[tuple[JsonObject, str, str, str]] = field(default_factory=list)

    def event(self, regarding: JsonObject, *, level: Any, reason: str, message: str) -> None:
        self.events.append((regarding, level, reason, message))


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


@pytest.fixture
def metrics() -> PluginMetrics:
    return PluginMetrics(version="1.2.3", levels=Levels)


@pytest.fixture
def telemetry(notebook: Notebook, metrics: PluginMetrics) -> Telemetry:
    return Telemetry(metrics, notebook, node="n", timer=lambda: notebook.now)


@pytest.fixture
def value(metrics: PluginMetrics) -> Callable[[str], float]:
    """The value of one series, as it is scraped."""

    def read(series: str) -> float:
        [line] = [one for one in metrics.page().splitlines() if one.startswith(f"{series} ")]
        return float(line.rpartition(" ")[2])

    return read


def request(outcome: str) -> str:
    return f'dra_request_duration_seconds_count{{operation="prepare",outcome="{outcome}"}}'


def test_a_call_that_succeeds_is_measured_and_says_nothing(
    telemetry: Telemetry, notebook: Notebook, value: Callable[[str], float]
) -> None:
    """Duration and outcome are counted; success is no news."""
    with telemetry.call("prepare", CLAIM):
        notebook.now += 0.25
    assert value(request("done")) == 1
    labels = 'operation="prepare",outcome="done"'
    assert value(f"dra_request_duration_seconds_sum{{{labels}}}") == 0.25
    assert notebook.events == []


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (VendorError("GPU is lost"), "HardwareError", "prepare on node n: GPU is lost"),
        (
            ZeroDivisionError("secret"),
            "InternalError",
            "prepare on node n: ZeroDivisionError; see the plugin's log",
        ),
    ],
)
def test_a_failure_becomes_an_event_on_the_claim(
    telemetry: Telemetry, notebook: Notebook, error: Exception, reason: str, message: str
) -> None:
    """Whoever describes the claim sees why; the error goes on to the caller; a bug keeps its details to the log."""
    with pytest.raises(type(error)), telemetry.call("prepare", CLAIM):
        raise error
    [(regarding, level, said, text)] = notebook.events
    assert regarding == {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "namespace": "team",
        "name": "a",
        "uid": CLAIM.uid,
    }
    assert (level, said, text) == ("Warning", reason, message)


def test_failures_are_counted_by_reason(
    telemetry: Telemetry, value: Callable[[str], float]
) -> None:
    """An error whose word is not on the list is counted as the bug that this is."""

    class Unlisted(DraError):
        reason = "SomethingNew"

    for error in (ClaimReplaced("x"), Unlisted("y")):
        with pytest.raises(DraError), telemetry.call("unprepare", CLAIM):
            raise error
    for reason in ("ClaimReplaced", "InternalError"):
        assert value(f'dra_errors_total{{operation="unprepare",reason="{reason}"}}') == 1


async def test_a_caller_that_goes_away_is_no_failure(
    telemetry: Telemetry, notebook: Notebook, value: Callable[[str], float]
) -> None:
    """Cancelled calls are counted apart, and write no Event."""
    with pytest.raises(asyncio.CancelledError), telemetry.call("prepare", CLAIM):
        raise asyncio.CancelledError
    assert value(request("cancelled")) == 1
    assert notebook.events == []


async def test_phases_know_their_call(
    telemetry: Telemetry, notebook: Notebook, value: Callable[[str], float]
) -> None:
    """Also in tasks that the call started, side by side with other calls; outside of calls nothing is measured."""

    async def work() -> None:
        with telemetry.phase("hardware"):
            await asyncio.sleep(0)
            notebook.now += 1

    async def call(operation: Any) -> None:
        with telemetry.call(operation, CLAIM):
            await asyncio.create_task(work())

    await asyncio.gather(call("prepare"), call("unprepare"), call("prepare"))
    with telemetry.phase("hardware"):
        pass
    for operation, times in (("prepare", 2), ("unprepare", 1)):
        labels = f'operation="{operation}",phase="hardware"'
        assert value(f"dra_phase_duration_seconds_count{{{labels}}}") == times


def test_the_other_counters(metrics: PluginMetrics, value: Callable[[str], float]) -> None:
    """Slices, recovery, and the API server's answers, of which odd ones are counted together."""
    metrics.slice_write("replace")
    metrics.recovery("cdi_written")
    for verb, status in (("get", 200), ("get", 418), ("list", 0), ("eat", 200)):
        metrics.api_request(verb, status)
    assert value('dra_slice_writes_total{verb="replace"}') == 1
    assert value('dra_recovery_actions_total{action="cdi_written"}') == 1
    for labels in (
        'verb="get",code="200"',
        'verb="get",code="other"',
        'verb="list",code="none"',
        'verb="other",code="200"',
    ):
        assert value(f"dra_api_requests_total{{{labels}}}") == 1
    assert value('dra_build_info{version="1.2.3"}') == 1


async def test_levels_follow_the_records(node: NodePlugin, new_claim: NewClaim) -> None:
    """Claims by state, and the devices that prepared ones hold, are what the node's records say."""
    claims = [new_claim("gpu-0000-1b-00-0"), new_claim("gpu-0000-43-00-0-mig-1g-10gb-0")]
    for claim in claims:
        await node.prepare(claim)
    node.state.mark_releasing(claims[1]["metadata"]["uid"])
    records = node.state.records.values()
    assert claims_by_state(records) == {"prepared": 1, "releasing": 1}
    assert devices_by_pool(records) == {POOL: 1}
    levels = Levels(
        held_claims=claims_by_state(records),
        prepared_devices=devices_by_pool(records),
        published_devices={POOL: 40},
        device_health={(POOL, "healthy"): 2},
    )
    page = PluginMetrics(version="1", levels=lambda: levels).page().splitlines()
    assert f'dra_prepared_devices{{pool="{POOL}"}} 1' in page
    assert f'dra_published_devices{{pool="{POOL}"}} 40' in page
    assert f'dra_device_health{{pool="{POOL}",health="healthy"}} 2' in page
    assert 'dra_held_claims{state="preparing"} 0' in page
    assert 'dra_held_claims{state="releasing"} 1' in page


def test_series_are_few_and_name_nobody(telemetry: Telemetry, metrics: PluginMetrics) -> None:
    """At most 1,000 from the first scrape on, whatever happens; no label but those of `*_info` is a pod, a claim or a UID."""
    before = len(metrics.page().splitlines())
    for number in range(500):
        claim = ClaimRef(namespace="team", name=f"c{number}", uid=f"{number}")
        with pytest.raises(VendorError), telemetry.call("prepare", claim):
            raise VendorError(f"GPU {number}")
    page = metrics.page()
    assert len(page.splitlines()) == before < 1000
    assert "team" not in page
    counted = [one.family for one in metrics.series if not one.family.name.endswith("_info")]
    labels = {label for family in counted for label in family.labels}
    assert not labels & {"pod", "namespace", "claim", "uid", "uuid", "device", "name"}


def test_names_are_as_prometheus_advises(metrics: PluginMetrics) -> None:
    """Our prefix (or the process's), a base unit, `_total` for what is counted and for nothing else."""
    families = [one.family for one in metrics.series]
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.name.startswith(("dra_", "process_"))
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert family.kind != "histogram" or family.name.endswith("_seconds")
        assert family.meaning.endswith(".")


def test_observations_are_cheap(metrics: PluginMetrics) -> None:
    """A hundred cost less than one scrape, so they never weigh on a call."""
    metrics.page()
    began = time.process_time()
    metrics.page()
    scrape_s = time.process_time() - began
    began = time.process_time()
    for _ in range(100):
        metrics.request("prepare", "done", seconds=0.001)
    assert time.process_time() - began < scrape_s


def test_documentation_is_current(metrics: PluginMetrics) -> None:
    """docs/user/metrics.md has the table as it is declared."""
    assert table(one.family for one in metrics.series) in PAGE.read_text()
