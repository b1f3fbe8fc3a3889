"""The kubelet's contract with DRA drivers, line by line, and what proves it.

The scenarios are those of the kubelet's own end-to-end tests (kubernetes test/e2e_node/dra_test.go). Files without a folder
are beside this one, and run a scripted driver; `process` runs our plugin as a process; `cluster` runs it under a real kubelet.

| scenario | test |
|---|---|
| registers after the kubelet's restart | test_registration: a_kubelet_that_restarts_registers_again; cluster/kubelet/test_restarts: a_restarted_kubelet_finds_the_plugin |
| registers after the plugin's restart | test_registration: a_plugin_that_restarts_is_registered_again |
| registers after GetInfo failed | test_registration: get_info_is_tried_again |
| registers after NotifyRegistrationStatus failed | here: a_registration_that_the_plugin_could_not_note_is_repeated |
| slices are there after each of these | test_slices: the_slices_of_a_driver_that_restarts_quickly_are_kept; process/test_publishing: slices_come_back_after_a_deletecollection |
| a pod made while the kubelet is down | test_restarts: a_pod_made_while_no_kubelet_runs_is_started_later |
| Pending when prepare times out | test_pods: a_prepare_that_takes_too_long_is_tried_again |
| prepare fails, then succeeds | test_pods: a_failed_prepare_is_reported_and_tried_again |
| the same over a restart | test_restarts: a_prepare_that_failed_before_a_restart_succeeds_after_it |
| unprepare fails, then succeeds | test_pods: a_deleted_pod_goes_after_its_devices_were_given_back |
| the same over a restart | test_restarts: an_unprepare_that_failed_before_a_restart_succeeds_after_it |
| unprepare for a deleted pod | test_pods: a_pod_deleted_while_it_is_prepared_is_unprepared |
| the same over a restart | test_restarts: claims_of_a_pod_that_vanished_while_no_kubelet_ran_are_unprepared |
| no prepare for a pod deleted meanwhile | test_restarts: a_pod_deleted_while_no_kubelet_ran_is_unprepared_only |
| DRA service after registration, two sockets | test_restarts: the_dra_service_may_come_after_the_registration |
| DRA service after registration, one socket | test_registration: one_socket_may_serve_both (with one socket nothing can come later) |
| works after the service reconnects | here: calls_and_health_come_back_after_the_connection_broke |
| gRPC serve errors are reported, registrar and service | tests/wire/test_sockets: a_live_socket_is_never_stolen, a_lost_path_is_taken_again_when_it_is_free |
| one connection for all calls | here: one_connection_serves_all_calls_and_health |
| two plugins are both called | test_pods: every_driver_of_a_claim_is_asked |
| two plugins, prepare or unprepare fails for one | test_pods: every_driver_of_a_claim_is_asked; here: one_driver_s_failure_to_unprepare_is_made_good |
| two plugins, in progress at the kubelet's restart | here: a_restart_in_the_middle_of_one_driver_s_call |
| metric dra_resource_claims_in_use by driver | here: claims_in_use_are_counted_by_driver |
| slices removed at the kubelet's start, own node only | test_slices: a_starting_kubelet_wipes_its_own_node_s_slices |
| slices removed after unregistration, or the plugin's stop | test_slices: the_slices_of_a_driver_that_stays_away_are_wiped |
| slices removed when it is unresponsive | test_slices: a_driver_whose_dra_socket_is_dead_counts_as_away |
| slices kept over a quick restart | test_slices: the_slices_of_a_driver_that_restarts_quickly_are_kept |
| Healthy and Unhealthy shown, both versions | test_health: a_pod_shows_how_its_device_is |
| Unknown on stop, and recovery, both versions | test_health: health_is_unknown_while_the_driver_is_away |
| reconnect of calls and health | here: calls_and_health_come_back_after_the_connection_broke |
| health of several pods | test_health: every_pod_shows_its_own_devices; here: calls_and_health_do_not_disturb_each_other |
| no health with the gate off | test_health: what_is_shown_depends_on_the_version |
| health by share | here: each_share_shows_the_health_of_its_device |
| shares prepared and reported | test_versions: shares_are_known_in_v1_alone; test_pod_resources |
| two instances of one driver | test_upgrades; test_restarts: the_newest_connected_instance_of_a_driver_gets_the_calls, a_registered_instance_without_connection_is_passed_over |
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dra_driver.sandbox.kubelet import endpoint
from kubelet_plugin.health_service import Health
from tests.sandbox.kubelet.driver import Driver, hang
from tests.sandbox.kubelet.lab import SHORT, Lab, eventually
from tests.sandbox.kubelet.relay import Relay
from tests.sandbox.kubelet.test_health import shown, tell

DRA, V1, V1ALPHA1 = "v1.DRAPlugin", "v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth"
TESTS = Path(__file__).parents[2]


def test_every_test_of_the_table_exists() -> None:
    """A test that is renamed is renamed here as well."""
    place = Path(__file__)
    checked = 0
    for file, names in re.findall(r"(?:([\w/]*test_\w+)|here): ([a-z_0-9, ]+)", __doc__ or ""):
        folder = TESTS.parent if file.startswith("tests/") else TESTS
        path = (folder if "/" in file else place.parent) / f"{file or place.stem}.py"
        for name in re.findall(r"\w+", names):
            assert f"def test_{name}(" in path.read_text(), f"{path}: {name}"
            checked += 1
    assert checked > 30


@pytest.fixture
def _patient_dialling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is slow to come is waited for, and none is made beside it."""
    options = dict(endpoint._CHANNEL_OPTIONS) | {"grpc.min_reconnect_backoff_ms": 20_000}
    monkeypatch.setattr(endpoint, "_CHANNEL_OPTIONS", tuple(options.items()))


@asynccontextmanager
async def relayed(lab: Lab, driver: Driver) -> AsyncIterator[Relay]:
    """The driver runs, and the kubelet reaches it through a relay."""
    path = Path(driver.info.endpoint)
    relay = Relay(path.with_name("relay.sock"), path)
    async with driver.serving(), relay.running():
        driver.info.endpoint = str(path.with_name("relay.sock"))
        async with driver.registering(lab.registry), lab.kubelet():
            yield relay


async def test_a_registration_that_the_plugin_could_not_note_is_repeated(lab: Lab) -> None:
    """From the start: the plugin has the last word about whether it is registered."""
    driver = lab.driver()
    driver.notify_script = [hang]
    async with driver.running(lab.registry), lab.kubelet(replace(SHORT, notify_s=3.0)):
        await lab.until_registered(driver)
    assert driver.registrations == [(True, "")]


@pytest.mark.usefixtures("_patient_dialling")
async def test_one_connection_serves_all_calls_and_health(lab: Lab) -> None:
    """Prepare, unprepare and the stream share it, for as long as the driver is there."""
    driver = lab.driver(services=[DRA, V1])
    tell(driver, Health.HEALTHY)
    await lab.make_claim("gpu")
    async with relayed(lab, driver) as relay:
        await lab.start_pod("pod", "gpu")
        await lab.until_health("pod", shown("Healthy"))
        await lab.delete_pod("pod")
        await lab.until_gone("pod")
        assert relay.connections == 1
    assert (driver.prepared, driver.unprepared, driver.watched) == ([["gpu"]], [["gpu"]], [V1])


@pytest.mark.usefixtures("_patient_dialling")
@pytest.mark.parametrize("health", [V1, V1ALPHA1])
async def test_calls_and_health_come_back_after_the_connection_broke(lab: Lab, health: str) -> None:
    """Without another registration, and again over one connection."""
    driver = lab.driver(services=[DRA, health])
    tell(driver, Health.HEALTHY)
    for name in ("gpu", "late"):
        await lab.make_claim(name)
    async with relayed(lab, driver) as relay:
        await lab.start_pod("pod", "gpu")
        await lab.until_health("pod", shown("Healthy"))
        relay.cut()
        tell(driver, Health.UNHEALTHY)
        await lab.until_health("pod", shown("Unhealthy"))
        await lab.start_pod("late", "late")
        await lab.until_running("late")
        assert relay.connections == 2
    assert len(driver.registrations) == 1


async def test_calls_and_health_do_not_disturb_each_other(lab: Lab) -> None:
    """Pods come while health changes all the time; each is prepared once and shows in the end what is."""
    driver = lab.driver(services=[DRA, V1])
    names = [f"c{number}" for number in range(8)]
    for name in names:
        await lab.make_claim(name)
    async with driver.running(lab.registry), lab.kubelet():
        await lab.until_registered(driver)
        async with asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(lab.start_pod(name, name))
            for round_ in range(20):
                for name in names:
                    tell(driver, Health.UNHEALTHY, f"round {round_}", claim=name)
                await asyncio.sleep(0)
        for name in names:
            await lab.until_health(name, shown("Unhealthy", "round 19", claim=name))
    assert sorted(driver.prepared) == [[name] for name in names]


async def test_each_share_shows_the_health_of_its_device(lab: Lab) -> None:
    """Two shares of one device are two entries, by their CDI devices."""
    driver = lab.driver(services=[DRA, V1])
    driver.shares = {"gpu": ("a", "b")}
    await lab.make_claim("gpu")
    async with driver.running(lab.registry), lab.kubelet():
        await lab.start_pod("pod", "gpu")
        for health in (Health.HEALTHY, Health.UNHEALTHY):
            tell(driver, health)
            one = shown(health.name.capitalize())
            shares = [one | {"resourceID": f"{one['resourceID']}-{share}"} for share in "ab"]
            await lab.until_health("pod", *shares)


async def test_one_driver_s_failure_to_unprepare_is_made_good(lab: Lab) -> None:
    """The pod goes when both have let go; the one that had is asked again, as it may have forgotten."""
    one, two = lab.driver(), lab.driver("b.example.com")
    two.unprepare_script = ["busy"]
    await lab.make_claim("gpu", one.name, two.name)
    async with AsyncExitStack() as stack:
        for driver in (one, two):
            await stack.enter_async_context(driver.running(lab.registry))
        await stack.enter_async_context(lab.kubelet())
        await lab.start_pod("pod", "gpu")
        await lab.until_running("pod")
        await lab.delete_pod("pod")
        await lab.until_gone("pod")
    assert two.unprepared == [["gpu"], ["gpu"]]
    assert one.unprepared[0] == ["gpu"]


@pytest.mark.parametrize("operation", ["prepare", "unprepare"])
async def test_a_restart_in_the_middle_of_one_driver_s_call(lab: Lab, operation: str) -> None:
    """Both drivers are asked again by the next kubelet, and the pod starts, or goes."""
    one, two = lab.driver(), lab.driver("b.example.com")
    getattr(two, f"{operation}_script").append(hang)
    await lab.make_claim("gpu", one.name, two.name)

    async def reached() -> bool:
        return bool(getattr(two, f"{operation}d"))

    async with one.running(lab.registry), two.running(lab.registry):
        async with lab.kubelet():
            await lab.start_pod("pod", "gpu")
            if operation == "unprepare":
                await lab.until_running("pod")
                await lab.delete_pod("pod")
            await eventually(reached)
        async with lab.kubelet():
            if operation == "prepare":
                await lab.until_running("pod")
                assert len(one.prepared) == len(two.prepared) == 2
            else:
                await lab.until_gone("pod")
                assert two.unprepared == [["gpu"], ["gpu"]]


async def test_claims_in_use_are_counted_by_driver(lab: Lab) -> None:
    """A claim of two drivers counts for both and once in all; nothing counts when its pods have gone."""
    one, two = lab.driver(), lab.driver("b.example.com")
    await lab.make_claim("both", one.name, two.name)
    await lab.make_claim("single", one.name)
    async with one.running(lab.registry), two.running(lab.registry), lab.kubelet():
        await lab.start_pod("a", "both")
        await lab.start_pod("b", "single")
        await lab.until_running("a")
        await lab.until_running("b")
        assert in_use(lab) == {"<any>": 2, one.name: 2, two.name: 1}
        await lab.delete_pod("a")
        await lab.until_gone("a")
        assert in_use(lab) == {"<any>": 1, one.name: 1}


def in_use(lab: Lab) -> dict[str, int]:
    """What a scrape says."""
    text = (lab.root / "metrics").read_text()
    found = re.findall(
        r'^dra_resource_claims_in_use\{driver_name="(.*)"\} (\d+)$', text, re.MULTILINE
    )
    return {driver: int(amount) for driver, amount in found}
