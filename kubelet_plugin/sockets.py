"""Where the plugin listens."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from dra_driver.wire.socket_files import PATH_LIMIT_BYTES, remove_dead_sockets


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSockets:
    """Paths of the DRA service's socket and of the registration's; the kubelet is told the first by the second."""

    service: Path
    registration: Path


def plugin_sockets(
    data_dir: Path, registry_dir: Path, *, driver: str, pod_uid: str | None
) -> PluginSockets:
    """The sockets of this instance. Different pods have different ones, so that two can serve side by side.

    With a pod's UID they are named as the Go helper (kubeletplugin, RollingUpdate) names them: of the names, the first
    whose whole path fits into a socket's address.
    """
    if pod_uid is None:
        return PluginSockets(
            service=data_dir / "dra.sock", registration=registry_dir / f"{driver}-reg.sock"
        )
    short_uid, shortest = _digest(pod_uid, 8), _digest(f"{driver}\0{pod_uid}", 16)
    return PluginSockets(
        service=_fitting(data_dir, f"dra-{pod_uid}.sock", f"dra-{short_uid}.sock"),
        registration=_fitting(
            registry_dir,
            f"{driver}-{pod_uid}-reg.sock",
            f"{driver}-{short_uid}-reg.sock",
            f"dra-{shortest}-reg.sock",
        ),
    )


def remove_predecessors(data_dir: Path, registry_dir: Path, *, driver: str) -> None:
    """What killed instances of this driver have left is gone; the sockets of living ones stay.

    A kubelet that finds a dead socket tries it for up to 25 s before it turns to ours. The shortest of the names above
    does not say whose it is, so such a socket stays.
    """
    remove_dead_sockets(data_dir, "dra.sock", "dra-*.sock")
    remove_dead_sockets(registry_dir, f"{driver}-reg.sock", f"{driver}-*-reg.sock")


def _fitting(folder: Path, *names: str) -> Path:
    paths = [folder / name for name in names]
    return next((path for path in paths if len(bytes(path)) <= PATH_LIMIT_BYTES), paths[-1])


def _digest(text: str, length: int) -> str:
    """The first bytes of the text's SHA-256, in letters that a file name may have."""
    digest = hashlib.sha256(text.encode()).digest()[:length]
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
