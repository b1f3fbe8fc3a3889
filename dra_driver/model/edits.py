"""What a container gets: the vendor-neutral half of a CDI spec (github.com/cncf-tags/container-device-interface)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """A device node in the container; `host_path` where it has another path on the host.

    `numbers` are major and minor of a character device of which the host has no node: the runtime makes one without it.
    """

    path: str
    host_path: str | None = None
    permissions: str = "rw"
    numbers: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A bind mount from the host."""

    host_path: str
    container_path: str
    options: tuple[str, ...] = ("ro", "nosuid", "nodev", "bind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A program of the host that the runtime runs while it makes the container; `args` begin with the program's own name."""

    path: str
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    name: str = "createContainer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEdits:
    """Environment, device nodes, mounts and hooks.

    Names and paths come from our own tables and from the vendor's programs on the host, never from a user's text.
    """

    env: tuple[tuple[str, str], ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[Mount, ...] = ()
    hooks: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedEdits:
    """Edits that all of a vendor's devices on a node have in common; other edits have another name.

    They have a CDI file of their own: a driver brings a hundred files, which no claim should carry around.
    """

    name: str
    edits: ContainerEdits
