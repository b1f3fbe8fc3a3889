"""The driver's libraries, programs and sockets, found without NVIDIA's toolkit: mounts alone, no hook, no linker cache.

A library of the driver is known by its name, which ends in the driver's version: a list of names would miss what the next driver
brings. It is mounted under each name that it has on the host, as programs ask for `libcuda.so.1` and nobody makes links inside
the container. All go to the folders that most CUDA images have in LD_LIBRARY_PATH and PATH; the host's own folders would be
wrong wherever the image is of another distribution.
"""

from __future__ import annotations

from pathlib import Path

from dra_driver.model.edits import ContainerEdits, Mount
from dra_driver.vendors.nvidia.driver_root import LIBRARY_FOLDERS, DriverRoot

CONTAINER_FOLDER = "/usr/local/nvidia"

_LIBRARY_FOLDERS = (*LIBRARY_FOLDERS, "usr/lib")
"""The last one last, as some distributions keep 32-bit libraries there."""
_UNVERSIONED = ("libnvidia-nvvm70.so.4",)
_PROGRAM_FOLDERS = ("usr/bin", "usr/local/bin", "bin")
_PROGRAMS = (
    *("nvidia-smi", "nvidia-debugdump", "nvidia-persistenced"),
    *("nvidia-cuda-mps-control", "nvidia-cuda-mps-server"),
)
_SOCKETS = ("run/nvidia-persistenced/socket", "run/nvidia-fabricmanager/socket")
_SOCKET_OPTIONS = ("ro", "nosuid", "nodev", "noexec", "bind")


def find_driver_files(root: DriverRoot, version: str) -> ContainerEdits:
    """Mounts of what exists of that driver version below the root; none where it has no library there."""
    here = root.here
    libraries = _libraries(here, version)
    if not libraries:
        return ContainerEdits()
    sources = libraries | _programs(here)
    files = [
        Mount(host_path=root.on_host(source), container_path=f"{CONTAINER_FOLDER}/{target}")
        for target, source in sorted(sources.items())
    ]
    sockets = [
        Mount(host_path=root.on_host(path), container_path=f"/{path}", options=_SOCKET_OPTIONS)
        for path in _SOCKETS
        if (here / path).is_socket()
    ]
    return ContainerEdits(mounts=(*files, *sockets))


def _libraries(root: Path, version: str) -> dict[str, str]:
    """Where each name of a library leads, of several folders the first: `lib64/libcuda.so.1` to `usr/lib64/libcuda.so.580.105.08`."""
    found: dict[str, str] = {}
    for folder in _LIBRARY_FOLDERS:
        names = _links(root / folder)
        for name in names:
            file = _end(names, name)
            if file.endswith(f".so.{version}") or file in _UNVERSIONED:
                found.setdefault(f"lib64/{name}", f"{folder}/{file}")
    return found


def _programs(root: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in _PROGRAM_FOLDERS:
        for name in _PROGRAMS:
            if (root / folder / name).is_file():
                found.setdefault(f"bin/{name}", f"{folder}/{name}")
    return found


def _links(folder: Path) -> dict[str, str | None]:
    """The libraries' names in the folder, each with the name in the same folder that it is a link to, None for a file."""
    try:
        paths = [path for path in folder.iterdir() if ".so" in path.name]
    except OSError:  # no such folder in this distribution
        return {}
    return {path.name: str(path.readlink()) if path.is_symlink() else None for path in paths}


def _end(names: dict[str, str | None], name: str) -> str:
    """The file to which the links lead; a link out of the folder, to nothing or in a circle leads nowhere."""
    seen = {name}
    while (target := names.get(name)) is not None:
        if target in seen or target not in names:
            return ""
        seen.add(target)
        name = target
    return name
