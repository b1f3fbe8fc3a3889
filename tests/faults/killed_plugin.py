"""The real plugin in a process that kills itself at a named point: `python -m tests.faults.killed_plugin run ...`.

The product has no hooks for this. Before `kubelet_plugin.__main__.main` runs, the classes that `kubelet_plugin.app` puts together
are replaced by ones that count what passes through them. See `kill_points` for the variables that say where to die.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Any

import dra_driver.kube.rest
import kubelet_plugin.__main__
from dra_driver.cdi.folder import CdiFolder
from dra_driver.config.settings import PluginSettings
from dra_driver.journal.store import ClaimJournal
from dra_driver.ports import Backend, CdiStore, ClaimStore, KubeApi
from kubelet_plugin import app
from kubelet_plugin.hardware import open_backends
from kubelet_plugin.service import DraService
from tests.faults.kill_points import (
    CHANGING,
    ENVIRONMENT,
    SYSTEM_CALLS,
    TRACE,
    KillPoint,
)

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Fate:
    """Counts the points that this process passes, from any thread, and ends it at the chosen one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        last = environment.get(ENVIRONMENT)
        self._last = None if last is None else KillPoint.parse(last)
        trace = environment.get(TRACE)
        self._trace = (
            None if trace is None else os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        )
        self._passed: Counter[str] = Counter()
        self._turn = threading.RLock()

    @property
    def is_interesting(self) -> bool:
        """Whether anybody wants to know."""
        return self._last is not None or self._trace is not None

    def passes(self, port: str, what: str, when: str) -> None:
        """The process is at this place once more; where it is the chosen point, this never returns."""
        with self._turn:
            place = KillPoint(port, what, when).place
            self._passed[place] += 1
            point = KillPoint(port, what, when, self._passed[place])
            if self._trace is not None:
                os.write(self._trace, f"{point}\n".encode())
            if point == self._last:
                os.kill(os.getpid(), signal.SIGKILL)
                threading.Event().wait()

    def around(self, port: str, what: str, call: Callable[[], Any]) -> Any:
        """The call's result, if the process lives to see it."""
        self.passes(port, what, "before")
        result = call()
        self.passes(port, what, "after")
        return result


class Mortal:
    """An adapter whose changing methods pass points; everything else is the inner adapter's."""

    def __init__(self, inner: Any, port: type, fate: Fate) -> None:
        self._inner = inner
        self._port = port
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if name not in CHANGING[self._port]:
            return attribute

        def passing(*arguments: Any) -> Any:
            what = type(arguments[0]).__name__ if name == "partition" else name
            call = partial(attribute, *arguments)
            return self._fate.around(self._port.__name__, what, call)

        return passing


def install(fate: Fate) -> None:
    """Whatever `kubelet_plugin.app` makes from now on passes the points."""
    folders: list[str] = []

    def sync(descriptor: int) -> None:
        fate.around("Files", "sync", lambda: os.fdatasync(descriptor))

    def journal(folder: Path, *, boot_id: str) -> Mortal:
        folders.append(str(folder))
        return Mortal(ClaimJournal(folder, boot_id=boot_id, sync=sync), ClaimStore, fate)

    def cdi(folder: Path) -> Mortal:
        folders.append(str(folder))
        return Mortal(CdiFolder(folder), CdiStore, fate)

    def backends(settings: PluginSettings) -> dict[str, Mortal]:
        opened = open_backends(settings)
        return {pool: Mortal(backend, Backend, fate) for pool, backend in opened.items()}

    sys.addaudithook(partial(_audit, fate, folders))
    replaced = {
        "ClaimJournal": journal,
        "CdiFolder": cdi,
        "open_backends": backends,
        "DraService": _mortal_service(fate),
    }
    for name, replacement in replaced.items():
        if not hasattr(app, name):
            raise AttributeError(f"kubelet_plugin.app has no {name} any more: say here what it has")
        setattr(app, name, replacement)
    _make_client_mortal(fate)


def _audit(fate: Fate, folders: list[str], event: str, arguments: tuple[Any, ...]) -> None:
    call = event.removeprefix("os.")
    if call not in SYSTEM_CALLS or (call == "open" and not arguments[2] & _WRITING):
        return
    paths = [os.fspath(one) for one in arguments if isinstance(one, str | os.PathLike)]
    if any(str(path).startswith(tuple(folders)) for path in paths):
        fate.passes("Files", call, "before")


def _mortal_service(fate: Fate) -> type[DraService]:
    """`before` a reply: it is there and not sent. `after`: it was sent."""

    async def answer(what: str, call: Awaitable[Any], context: Any) -> Any:
        reply = await call
        fate.passes("Reply", what, "before")
        context.add_done_callback(lambda _: fate.passes("Reply", what, "after"))
        return reply

    class MortalService(DraService):
        async def NodePrepareResources(self, request: Any, context: Any) -> Any:  # noqa: N802
            inner = super().NodePrepareResources(request, context)
            return await answer("prepare", inner, context)

        async def NodeUnprepareResources(self, request: Any, context: Any) -> Any:  # noqa: N802
            inner = super().NodeUnprepareResources(request, context)
            return await answer("unprepare", inner, context)

    return MortalService


def _make_client_mortal(fate: Fate) -> None:
    client = dra_driver.kube.rest.RestApi
    for name in CHANGING[KubeApi]:
        setattr(client, name, _mortal_request(getattr(client, name), fate))


def _mortal_request(
    method: Callable[..., Awaitable[Any]], fate: Fate
) -> Callable[..., Awaitable[Any]]:
    @wraps(method)
    async def request(*arguments: Any, **named: Any) -> Any:
        fate.passes(KubeApi.__name__, method.__name__, "before")
        answer = await method(*arguments, **named)
        fate.passes(KubeApi.__name__, method.__name__, "after")
        return answer

    return request


def main() -> None:
    """The plugin's own entry point, mortal where the environment says so."""
    fate = Fate(os.environ)
    if fate.is_interesting:
        install(fate)
    kubelet_plugin.__main__.main()


if __name__ == "__main__":
    main()
