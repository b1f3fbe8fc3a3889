"""One place for NVML and for the files that containers get."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.vendors.nvidia.driver_edits import DriverEdits
from dra_driver.vendors.nvidia.driver_files import find_driver_files
from dra_driver.vendors.nvidia.driver_root import DriverRoot
from dra_driver.vendors.nvidia.driver_search import DriverSearch
from tests.vendors.nvidia.driver_tree import DRIVER, LIBRARIES, build_driver, link, settled

CONTAINER = Path("/run/nvidia/driver")


@pytest.mark.parametrize("place", [Path("/"), CONTAINER, Path("/home/kubernetes/bin/nvidia")])
def test_it_is_where_nvml_is(tmp_path: Path, place: Path) -> None:
    """The library that this process loads and the files that the runtime mounts are of one driver."""
    root = DriverRoot(host_root=tmp_path)
    build_driver(root.seen(place))
    assert root.path == place
    assert root.nvml() == root.seen(place / LIBRARIES / "libnvidia-ml.so.1")
    mounts = find_driver_files(root, DRIVER).mounts
    assert mounts
    assert all(mount.host_path.startswith(str(place)) for mount in mounts)


def test_the_host_s_own_driver_comes_first(tmp_path: Path) -> None:
    """A driver container's folder may be left of a driver that is not used any more."""
    root = DriverRoot(host_root=tmp_path)
    build_driver(root.seen(CONTAINER))
    build_driver(root.seen("/"))
    assert root.path == Path("/")


def test_a_configured_one_is_the_only_one(tmp_path: Path) -> None:
    """NVML of another driver on the host is not loaded, even where the configured root has none."""
    root = DriverRoot(configured=CONTAINER, host_root=tmp_path)
    build_driver(root.seen("/"))
    assert (root.path, root.nvml()) == (CONTAINER, None)
    build_driver(root.seen(CONTAINER))
    assert root.nvml() == root.seen(CONTAINER / LIBRARIES / "libnvidia-ml.so.1")


def test_a_link_to_nowhere_is_no_library(tmp_path: Path) -> None:
    """Debian's is an absolute one, which leads out of the host's root as we see it."""
    root = DriverRoot(host_root=tmp_path)
    build_driver(tmp_path)
    link(tmp_path / LIBRARIES, "libnvidia-ml.so.1", "/etc/alternatives/nothing")
    assert (root.path, root.nvml()) == (Path("/"), None)


def test_a_driver_container_may_come_later(tmp_path: Path) -> None:
    """Until then nothing is found; the next look at a GPU finds its files."""
    root = DriverRoot(host_root=tmp_path)
    edits = DriverEdits(DriverSearch(root, kept_in=tmp_path / "kept.json"))
    assert edits.of(DRIVER) is None
    build_driver(root.seen(CONTAINER))
    edits.expect(DRIVER)
    settled(edits)
    shared = edits.of(DRIVER)
    assert shared is not None
    assert shared.edits == find_driver_files(root, DRIVER)
