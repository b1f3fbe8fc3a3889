"""Our own search for the driver's files, on hosts as distributions lay them out."""

from pathlib import Path

import pytest

from dra_driver.model.edits import ContainerEdits
from dra_driver.rules.container_edits import check_edits
from dra_driver.vendors.nvidia.driver_files import find_driver_files
from dra_driver.vendors.nvidia.driver_root import DriverRoot
from tests.vendors.nvidia.driver_tree import DRIVER, LIBRARIES, build_driver, link, listen


def mounted(edits: ContainerEdits) -> dict[str, str]:
    """What the container sees, and where it lies on the host."""
    return {mount.container_path: mount.host_path for mount in edits.mounts}


def test_a_library_has_all_its_names(tmp_path: Path) -> None:
    """Files and links of the driver's version, and nobody else's; programs that are there, and no others."""
    build_driver(tmp_path)
    edits = find_driver_files(DriverRoot(host_root=tmp_path), DRIVER)
    check_edits(edits)
    cuda = f"/{LIBRARIES}/libcuda.so.{DRIVER}"
    assert mounted(edits) == {
        "/usr/local/nvidia/bin/nvidia-cuda-mps-control": "/usr/bin/nvidia-cuda-mps-control",
        "/usr/local/nvidia/bin/nvidia-smi": "/usr/bin/nvidia-smi",
        "/usr/local/nvidia/lib64/libcuda.so": cuda,
        "/usr/local/nvidia/lib64/libcuda.so.1": cuda,
        f"/usr/local/nvidia/lib64/libcuda.so.{DRIVER}": cuda,
        f"/usr/local/nvidia/lib64/libnvidia-glcore.so.{DRIVER}": f"/{LIBRARIES}/libnvidia-glcore.so.{DRIVER}",
        "/usr/local/nvidia/lib64/libnvidia-ml.so.1": f"/{LIBRARIES}/libnvidia-ml.so.{DRIVER}",
        f"/usr/local/nvidia/lib64/libnvidia-ml.so.{DRIVER}": f"/{LIBRARIES}/libnvidia-ml.so.{DRIVER}",
    }
    assert {mount.options for mount in edits.mounts} == {("ro", "nosuid", "nodev", "bind")}


def test_a_driver_container_has_other_paths_on_the_host(tmp_path: Path) -> None:
    """The runtime finds the files below the driver's root, as the host names it; the container's paths stay the same."""
    build_driver(tmp_path / "run/nvidia/driver")
    root = DriverRoot(configured=Path("/run/nvidia/driver"), host_root=tmp_path)
    found = mounted(find_driver_files(root, DRIVER))
    library = f"/run/nvidia/driver/{LIBRARIES}/libcuda.so.{DRIVER}"
    assert found["/usr/local/nvidia/lib64/libcuda.so.1"] == library
    assert found["/usr/local/nvidia/bin/nvidia-smi"] == "/run/nvidia/driver/usr/bin/nvidia-smi"
    assert (
        find_driver_files(DriverRoot(configured=Path("/"), host_root=tmp_path), DRIVER)
        == ContainerEdits()
    )


@pytest.mark.parametrize(
    "folder",
    ["usr/lib64", "usr/lib/aarch64-linux-gnu", "usr/lib/x86_64-linux-gnu/nvidia/current", "lib64"],
)
def test_distributions_keep_libraries_in_different_folders(tmp_path: Path, folder: str) -> None:
    """Wherever they are on the host, containers find them in one place."""
    build_driver(tmp_path, folder=folder)
    found = mounted(find_driver_files(DriverRoot(host_root=tmp_path), DRIVER))
    assert found["/usr/local/nvidia/lib64/libcuda.so.1"] == f"/{folder}/libcuda.so.{DRIVER}"


def test_32_bit_libraries_are_not_taken_for_others(tmp_path: Path) -> None:
    """Where there are both, each name is mounted once, from the 64-bit folder."""
    build_driver(tmp_path, folder="usr/lib")
    build_driver(tmp_path, folder="usr/lib64")
    found = mounted(find_driver_files(DriverRoot(host_root=tmp_path), DRIVER))
    assert found["/usr/local/nvidia/lib64/libcuda.so"] == f"/usr/lib64/libcuda.so.{DRIVER}"


def test_a_library_with_a_version_of_its_own_is_known_by_name(tmp_path: Path) -> None:
    """The one that the driver's compiler loads."""
    folder = tmp_path / LIBRARIES
    folder.mkdir(parents=True)
    (folder / "libnvidia-nvvm70.so.4").touch()
    build_driver(tmp_path)
    root = DriverRoot(host_root=tmp_path)
    assert "/usr/local/nvidia/lib64/libnvidia-nvvm70.so.4" in mounted(
        find_driver_files(root, DRIVER)
    )


def test_links_that_lead_nowhere_are_passed_over(tmp_path: Path) -> None:
    """To nothing, in a circle, out of the folder."""
    build_driver(tmp_path)
    folder = tmp_path / LIBRARIES
    link(folder, "libloose.so.1", f"libloose.so.{DRIVER}")
    link(folder, "libcircle.so.1", "libcircle.so.2")
    link(folder, "libcircle.so.2", "libcircle.so.1")
    link(folder, "libaway.so.1", f"/etc/libaway.so.{DRIVER}")
    found = mounted(find_driver_files(DriverRoot(host_root=tmp_path), DRIVER))
    assert not [path for path in found if "loose" in path or "circle" in path or "away" in path]


def test_sockets_of_daemons_that_run(tmp_path: Path) -> None:
    """At the path where clients look for them, and nothing in them can be executed."""
    build_driver(tmp_path)
    with listen(tmp_path / "run/nvidia-persistenced/socket"):
        mounts = find_driver_files(DriverRoot(host_root=tmp_path), DRIVER).mounts
    (socket,) = [mount for mount in mounts if mount.host_path.endswith("socket")]
    assert socket.container_path == socket.host_path == "/run/nvidia-persistenced/socket"
    assert "noexec" in socket.options
