"""The registry folder: every socket in it is a plugin that wants to be registered (k8s.io/kubelet pluginregistration/v1)."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import NamedTuple

import grpc.aio
import structlog

from dra_driver.model.errors import DraError
from dra_driver.model.names import is_dns_subdomain
from dra_driver.sandbox.kubelet.deadlines import Deadlines
from dra_driver.sandbox.kubelet.endpoint import Endpoint, dial, dra_service
from dra_driver.sandbox.kubelet.health import NodeHealth
from dra_driver.sandbox.kubelet.plugins import Plugins
from dra_driver.wire.registration_v1 import api_pb2, api_pb2_grpc

_log = structlog.get_logger()


class RegistrationFailed(DraError):
    """A plugin does not answer, or says something about itself that no kubelet accepts."""

    reason = "RegistrationFailed"


class SocketFile(NamedTuple):
    """One socket; a plugin that restarts makes another one, at the same path."""

    path: Path
    inode: int
    mtime_ns: int


class Registry:
    """Keeps `plugins` in line with the folder: a new socket is registered, a removed one deregistered.

    The folder is polled: no dependency on inotify, and a socket that was replaced between two looks is told by its inode.
    """

    def __init__(
        self, folder: Path, plugins: Plugins, health: NodeHealth, deadlines: Deadlines
    ) -> None:
        self._folder = folder
        self._plugins = plugins
        self._health = health
        self._deadlines = deadlines

    async def run(self) -> None:
        """Follow the folder until cancelled; then everything is deregistered."""
        followed: dict[SocketFile, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                found = find_sockets(self._folder)
                removed = [followed.pop(socket) for socket in followed.keys() - found]
                for task in removed:
                    task.cancel()
                await asyncio.gather(*removed, return_exceptions=True)
                for socket in sorted(found - followed.keys()):
                    followed[socket] = tasks.create_task(self._follow(socket.path))
                await asyncio.sleep(self._deadlines.poll_s)

    async def _follow(self, socket: Path) -> None:
        """Register, from the start after each failure, and stay registered until cancelled."""

        async def failed(error: DraError) -> None:
            _log.warning("plugin not registered", socket=str(socket), error=str(error))

        await self._deadlines.persist(lambda: self._register(socket), failed=failed)

    async def _register(self, socket: Path) -> None:
        try:
            async with dial(socket) as channel:
                await asyncio.wait_for(channel.channel_ready(), self._deadlines.dial_s)
                await self._shake_hands(socket, api_pb2_grpc.RegistrationStub(channel))
        except TimeoutError as error:
            raise RegistrationFailed("nobody answers") from error
        except grpc.aio.AioRpcError as error:
            raise RegistrationFailed(f"{error.code().name}: {error.details()}") from error

    async def _shake_hands(self, socket: Path, plugin: api_pb2_grpc.RegistrationAsyncStub) -> None:
        info = await plugin.GetInfo(api_pb2.InfoRequest(), timeout=self._deadlines.get_info_s)
        path = Path(info.endpoint) if info.endpoint else socket
        service = dra_service(info.supported_versions)
        objection = self._objection(info, path)
        status = api_pb2.RegistrationStatus(plugin_registered=not objection, error=objection)
        if objection or service is None:
            await plugin.NotifyRegistrationStatus(status, timeout=self._deadlines.notify_s)
            raise RegistrationFailed(objection)
        endpoint = Endpoint(driver=info.name, path=path, service=service)
        async with self._plugins.added(endpoint):
            await plugin.NotifyRegistrationStatus(status, timeout=self._deadlines.notify_s)
            _log.info("plugin registered", driver=info.name, socket=str(socket))
            await self._health.follow(endpoint, info.supported_versions)

    def _objection(self, info: api_pb2.PluginInfo, path: Path) -> str:
        """What is wrong with the plugin; empty where nothing is."""
        if info.type != "DRAPlugin":
            return f"no handler for plugin type {info.type!r}: this kubelet knows DRAPlugin"
        if not is_dns_subdomain(info.name, limit=63):
            return f"driver name {info.name!r} is not a DNS subdomain of at most 63 characters"
        if not path.is_absolute():
            return f"driver {info.name}: endpoint {info.endpoint!r} is not an absolute path"
        if dra_service(info.supported_versions) is None:
            offered = ", ".join(info.supported_versions) or "nothing"
            return f"driver {info.name} offers {offered}: this kubelet calls v1.DRAPlugin and v1beta1.DRAPlugin"
        if self._plugins.has(info.name, path):
            return f"driver {info.name} is already registered with endpoint {path}"
        return ""


def find_sockets(folder: Path) -> frozenset[SocketFile]:
    """All sockets below the folder, but for names that begin with a dot."""
    found = set()
    for path in folder.rglob("[!.]*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # removed since it was listed
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if stat.S_ISSOCK(status.st_mode) and not hidden:
            found.add(SocketFile(path, status.st_ino, status.st_mtime_ns))
    return frozenset(found)
