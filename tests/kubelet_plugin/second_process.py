"""A second process of this driver, which does one thing after the other as it is told: run as a program, or started by a test."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

from kubelet_plugin.instances import joined
from kubelet_plugin.locks import NodeLocks


class SecondProcess:
    """Each command is one line, and is answered by one line when it is done."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def tell(self, *words: str) -> None:
        """Have it begin that."""
        assert self._process.stdin is not None
        self._process.stdin.write((" ".join(words) + "\n").encode())
        await self._process.stdin.drain()

    async def answer(self) -> str:
        """What it says next."""
        assert self._process.stdout is not None
        return (await asyncio.wait_for(self._process.stdout.readline(), 20)).decode().strip()

    async def do(self, *words: str) -> str:
        """Have it done; its answer."""
        await self.tell(*words)
        return await self.answer()

    async def interrupt(self) -> None:
        """SIGINT, and wait until it has ended by itself."""
        self._process.send_signal(signal.SIGINT)
        await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def second_process(folder: Path) -> AsyncIterator[SecondProcess]:
    """A process over the folder; it is gone when the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.kubelet_plugin.second_process", str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    child = SecondProcess(process)
    try:
        yield child
    finally:
        await child.kill()


async def _obey(folder: Path) -> None:
    locks, held, instances = NodeLocks(folder / "locks"), AsyncExitStack(), ExitStack()
    instance = None
    while line := await asyncio.to_thread(sys.stdin.readline):
        match line.split():
            case ["lock", *names]:
                await held.enter_async_context(locks.held(*names))
            case ["unlock"]:
                await held.aclose()
            case ["join", pod_uid]:
                instance = instances.enter_context(joined(folder, pod_uid))
            case ["announce"] if instance is not None:
                instance.announce()
            case ["leads"] if instance is not None:
                _say(str(instance.leads()))
                continue
            case ["leave"]:
                instances.close()
        _say("done")


def _say(answer: str) -> None:
    sys.stdout.write(f"{answer}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_obey(Path(sys.argv[1])))
