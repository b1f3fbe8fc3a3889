from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.model.names import DRIVER_NAME
from dra_driver.wire.socket_files import PATH_LIMIT_BYTES
from dra_driver.wire.sockets import serving
from kubelet_plugin.sockets import PluginSockets, plugin_sockets, remove_predecessors

DATA = Path("/var/lib/kubelet/plugins/gpu.dra-driver.dev")
REGISTRY = Path("/var/lib/kubelet/plugins_registry")
UID = "3f0e6a52-7a0f-4a7e-9d4e-1c2b3a4d5e6f"
OTHER_UID = "3f0e6a52-7a0f-4a7e-9d4e-1c2b3a4d5e60"


def named(
    uid: str | None, *, data: Path = DATA, registry: Path = REGISTRY, driver: str = DRIVER_NAME
) -> PluginSockets:
    return plugin_sockets(data, registry, driver=driver, pod_uid=uid)


def test_without_a_pod_the_names_are_fixed() -> None:
    """One instance at a time, found where everybody looks."""
    assert named(None) == PluginSockets(
        service=DATA / "dra.sock", registration=REGISTRY / f"{DRIVER_NAME}-reg.sock"
    )


def test_a_pod_s_sockets_carry_its_uid() -> None:
    """In full on every common installation: people find the pod by it."""
    assert named(UID) == PluginSockets(
        service=DATA / f"dra-{UID}.sock", registration=REGISTRY / f"{DRIVER_NAME}-{UID}-reg.sock"
    )


@pytest.mark.parametrize(
    ("length", "name"),
    [
        (42, f"{DRIVER_NAME}-{UID}-reg.sock"),
        (43, f"{DRIVER_NAME}-c4BXarS3hEg-reg.sock"),
        (67, f"{DRIVER_NAME}-c4BXarS3hEg-reg.sock"),
        (68, "dra-azhrbkXbVvUVCagw-e0Seg-reg.sock"),
    ],
)
def test_a_long_folder_shortens_the_name(length: int, name: str) -> None:
    """By the same hashes as the Go helper's, so that whoever knows those names knows ours."""
    folder = Path("/" + "r" * (length - 1))
    assert named(UID, registry=folder).registration == folder / name


def test_a_folder_too_long_for_any_name_gets_the_shortest() -> None:
    """Opening the socket then says which path is too long."""
    folder = Path("/" + "r" * 120)
    assert named(UID, data=folder).service.name == "dra-c4BXarS3hEg.sock"


async def test_what_killed_predecessors_left_is_removed(tmp_path: Path) -> None:
    """Of every pod of this driver; living sockets, other drivers' and other files stay."""
    data, registry = tmp_path / "data", tmp_path / "registry"
    for folder in (data, registry):
        folder.mkdir()
    dead = [
        data / "dra.sock",
        data / "dra-1.sock",
        registry / f"{DRIVER_NAME}-reg.sock",
        registry / f"{DRIVER_NAME}-1-reg.sock",
    ]
    others = [registry / "b.example.com-reg.sock", registry / f"{DRIVER_NAME}x-reg.sock"]
    for path in [*dead, *others]:
        leave_dead_socket(path)
    alive = data / "dra-2.sock"
    async with serving(alive, lambda _: None):
        remove_predecessors(data, registry, driver=DRIVER_NAME)
        assert sorted([*data.iterdir(), *registry.iterdir()]) == sorted([alive, *others])


def leave_dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@given(st.integers(min_value=1, max_value=70), st.integers(min_value=1, max_value=63))
def test_two_pods_never_share_a_socket(folder_length: int, driver_length: int) -> None:
    """Whatever name they end up with, it fits and is theirs."""
    folder = Path("/" + "f" * folder_length)
    driver = "d" * driver_length
    one, two = (named(uid, data=folder, registry=folder, driver=driver) for uid in (UID, OTHER_UID))
    paths = [one.service, one.registration, two.service, two.registration]
    assert len(set(paths)) == 4
    assert all(len(bytes(path)) <= PATH_LIMIT_BYTES for path in paths)
