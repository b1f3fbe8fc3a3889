"""Plugins forked from a process that has imported everything: each costs 0.06 s of a core to start in place of 0.6 s.

What is forked is the real program from its entry point on; only its imports are done. `python -m tests.faults.forks` is that
process: a JSON object a line on stdin and stdout. Whatever it has forked dies with it, and it ends with its stdin.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import selectors
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(slots=True, eq=False)
class ForkedProcess:
    """A process, as far as `asyncio.subprocess.Process` has been agreed on."""

    pid: int
    _forks: Forks
    _ended: asyncio.Future[int] = field(default_factory=asyncio.Future)

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal, None while it lives."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        """The exit status, once there is one."""
        return await asyncio.shield(self._ended)

    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing happens if it is gone."""
        self._forks.say({"signal": number, "pid": self.pid})

    def end(self, status: int) -> None:
        """It has ended."""
        self._ended.set_result(status)


class Forks:
    """Starts plugins. Make it by `forking`. `pid` is the server's."""

    def __init__(self, server: asyncio.subprocess.Process) -> None:
        assert server.stdin is not None
        assert server.stdout is not None
        self.pid = server.pid
        self._stdin, self._stdout = server.stdin, server.stdout
        self._waiting: list[asyncio.Future[ForkedProcess]] = []
        self._alive: dict[int, ForkedProcess] = {}

    async def start(
        self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> ForkedProcess:
        """The plugin with these arguments, and with these variables added; what it prints is appended to the log."""
        started: asyncio.Future[ForkedProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append(started)
        self.say(
            {"arguments": list(arguments), "log": str(log), "environment": dict(environment or {})}
        )
        return await started

    def say(self, message: Mapping[str, Any]) -> None:
        """Have the server do something."""
        self._stdin.write(json.dumps(message).encode() + b"\n")

    async def listen(self) -> None:
        """Take note of what the server says, until it ends."""
        async for line in self._stdout:
            message = json.loads(line)
            pid = message["pid"]
            if "status" in message:
                self._alive.pop(pid).end(message["status"])
            else:
                self._alive[pid] = ForkedProcess(pid, self)
                self._waiting.pop(0).set_result(self._alive[pid])


@asynccontextmanager
async def forking(*within: str) -> AsyncIterator[Forks]:
    """Plugins can be started while the block runs; those that are left are killed at its end.

    `within` is the beginning of a command, in which they and their server run.
    """
    pipe = asyncio.subprocess.PIPE
    program = (*within, sys.executable, "-m", "tests.faults.forks")
    server = await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe, cwd=ROOT)
    forks = Forks(server)
    listening = asyncio.create_task(forks.listen())
    try:
        yield forks
    finally:
        assert server.stdin is not None
        server.stdin.close()
        await server.wait()
        await listening


class _Server:
    """The process that forks. One thread, so that nothing is lost in a fork."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(0, selectors.EVENT_READ)
        self._children: dict[int, int] = {}

    def serve(self) -> None:
        """Until stdin ends."""
        rest = b""
        while True:
            for key, _ in self._selector.select():
                if key.fd != 0:
                    self._reap(key.fd, key.data)
                    continue
                data = os.read(0, 65536)
                if not data:
                    return self._kill_all()
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._do(json.loads(line))

    def _do(self, message: dict[str, Any]) -> None:
        if "signal" in message:
            if message["pid"] in self._children:
                os.kill(message["pid"], message["signal"])
            return
        pid = os.fork()
        if pid == 0:
            _become_plugin(message)
        descriptor = self._children[pid] = os.pidfd_open(pid)
        self._selector.register(descriptor, selectors.EVENT_READ, pid)
        _answer({"pid": pid})

    def _reap(self, descriptor: int, pid: int) -> None:
        self._selector.unregister(descriptor)
        os.close(descriptor)
        del self._children[pid]
        _, status = os.waitpid(pid, 0)
        _answer({"pid": pid, "status": os.waitstatus_to_exitcode(status)})

    def _kill_all(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _answer(message: Mapping[str, int]) -> None:
    with suppress(BrokenPipeError):
        os.write(1, json.dumps(message).encode() + b"\n")


def _become_plugin(message: dict[str, Any]) -> None:
    """Never returns."""
    from tests.faults import killed_plugin  # noqa: PLC0415 (imported long ago, in the process that forks)

    status = 1
    try:
        output = os.open(message["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(message["environment"])
        sys.argv = ["dra-kubelet-plugin", *message["arguments"]]
        killed_plugin.main()
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001 (the last frame of this process)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    from tests.faults import killed_plugin  # noqa: F401

    gc.freeze()
    _Server().serve()
