import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from dra_driver.model.errors import StartError
from dra_driver.wire.registration_v1 import api_pb2, api_pb2_grpc
from dra_driver.wire.socket_files import PATH_LIMIT_BYTES, remove_dead_sockets
from dra_driver.wire.sockets import WATCH_S, create_private_folder, serving
from kubelet_plugin.registration import Registration
from tests.limits import no_more_descriptors


def add_services(server: grpc.aio.Server) -> None:
    Registration(driver="example.com", endpoint=Path("/dra.sock")).add_to(server)


async def ask(path: Path) -> str:
    async with connected(path) as stub:
        return await ask_over(stub)


async def test_a_socket_answers_while_served_and_is_gone_afterwards(tmp_path: Path) -> None:
    """Only its owner may connect, and nothing is left behind."""
    path = tmp_path / "a.sock"
    async with serving(path, add_services):
        assert await ask(path) == "example.com"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_a_killed_process_s_socket_is_replaced(tmp_path: Path) -> None:
    """A socket that nobody listens on is what SIGKILL leaves: it never keeps its successor from starting."""
    path = tmp_path / "a.sock"
    leave_dead_socket(path)
    assert path.exists()
    async with serving(path, add_services):
        assert await ask(path) == "example.com"


def leave_dead_socket(path: Path) -> None:
    code = "import socket,sys,time; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)


async def test_a_live_socket_is_never_stolen(tmp_path: Path) -> None:
    """The second server fails and says why; the first goes on as if nothing had been."""
    path = tmp_path / "a.sock"
    async with serving(path, add_services):
        with pytest.raises(StartError, match=rf"{path}: another process serves it"):
            await serving(path, add_services).__aenter__()
        assert await ask(path) == "example.com"


async def test_a_socket_with_a_full_backlog_counts_as_live(tmp_path: Path) -> None:
    """A process too busy to accept is no dead process."""
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(StartError, match="another process serves it"):
            await serving(path, add_services).__aenter__()


async def until(reached: Callable[[], bool]) -> None:
    """It is so, sooner or later."""
    async with asyncio.timeout(WATCH_S + 5):
        while True:
            if reached():
                return
            await asyncio.sleep(0.01)


def names(folder: Path) -> list[str]:
    """Of all that is in the folder."""
    return sorted(path.name for path in folder.iterdir())


async def test_a_removed_socket_is_there_again(tmp_path: Path) -> None:
    """Whoever removes it, and however often: with the same rights, and with nothing else beside it."""
    path = tmp_path / "a.sock"
    async with serving(path, add_services):
        for _ in range(2):
            path.unlink()
            await until(path.exists)
            assert await ask(path) == "example.com"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert names(tmp_path) == ["a.sock"]
    assert names(tmp_path) == []


async def test_no_call_is_lost_while_the_socket_is_replaced(tmp_path: Path) -> None:
    """Whoever is connected goes on without an error: what runs is finished, and new calls are answered as before."""
    path = tmp_path / "a.sock"
    slow = Slow()
    async with serving(path, slow.add_to), connected(path) as stub:
        status = api_pb2.RegistrationStatus()
        running = asyncio.ensure_future(stub.NotifyRegistrationStatus(status, timeout=30))
        await slow.begun.wait()
        path.unlink()
        answered = 0
        while not path.exists() or answered < 200:
            await asyncio.gather(*(ask_over(stub) for _ in range(8)))
            answered += 1
        assert listening(tmp_path) == 2
        for _ in range(200):
            await ask_over(stub)
        assert not running.done()
        slow.go_on.set()
        await running


async def test_a_socket_that_is_removed_for_ever_is_served_by_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server for each time would fill the process."""
    monkeypatch.setattr("dra_driver.wire.sockets.WATCH_S", 0.05)
    path = tmp_path / "a.sock"
    async with serving(path, add_services):
        for _ in range(12):
            path.unlink()
            await until(path.exists)
        await until(lambda: listening(tmp_path) == 4)
        assert await ask(path) == "example.com"


def listening(folder: Path) -> int:
    """How many sockets under it are listened on, also those without a file."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sum(1 for line in lines if str(folder) in line and line.split()[3] == "00010000")


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Any]:
    """Over a connection of one's own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"unix:{path}", options) as channel:
        yield api_pb2_grpc.RegistrationStub(channel)


async def ask_over(stub: Any) -> str:
    return str((await stub.GetInfo(api_pb2.InfoRequest(), timeout=5)).name)


class Slow(Registration):
    """Answers a notification only when told so."""

    def __init__(self) -> None:
        super().__init__(driver="example.com", endpoint=Path("/dra.sock"))
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def NotifyRegistrationStatus(  # noqa: N802
        self, request: api_pb2.RegistrationStatus, context: Any
    ) -> api_pb2.RegistrationStatusResponse:
        self.begun.set()
        await self.go_on.wait()
        return await super().NotifyRegistrationStatus(request, context)


async def test_a_stop_ends_replaced_servers_as_well(tmp_path: Path) -> None:
    """Calls that they still have get the same grace as all others."""
    path = tmp_path / "a.sock"
    slow = Slow()
    async with connected(path) as stub, asyncio.timeout(20):
        async with serving(path, slow.add_to, grace_s=0.0):
            running = asyncio.ensure_future(
                stub.NotifyRegistrationStatus(api_pb2.RegistrationStatus())
            )
            await slow.begun.wait()
            path.unlink()
            await until(path.exists)
        with pytest.raises(grpc.aio.AioRpcError):
            await running


async def test_a_successor_s_socket_is_left_alone(tmp_path: Path) -> None:
    """Whoever has taken the path by now keeps it, also when the first server stops; the log says that it is lost."""
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as successor, capture_logs() as lines:
        async with serving(path, add_services):
            path.unlink()
            successor.bind(str(path))
            successor.listen()
            taken = path.stat().st_ino
            await until(lambda: bool(lines))
        assert "another process serves it" in lines[0]["error"]
        assert path.stat().st_ino == taken


async def test_a_lost_path_is_taken_again_when_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the way is not ours to remove; it is reported once, and waited for."""
    monkeypatch.setattr("dra_driver.wire.sockets.WATCH_S", 0.05)
    path = tmp_path / "a.sock"
    with capture_logs() as lines:
        async with serving(path, add_services):
            (tmp_path / "file").write_text("")
            (tmp_path / "file").rename(path)
            await until(lambda: bool(lines))
            await asyncio.sleep(1)  # it looks twice, at least
            path.unlink()
            await until(path.exists)
            assert await ask(path) == "example.com"
    assert [line["log_level"] for line in lines] == ["error", "warning"]
    assert "no socket is in the way" in lines[0]["error"]


async def test_a_process_without_descriptors_gets_its_socket_back_later(tmp_path: Path) -> None:
    """Whatever the kernel refuses at one look is asked for again at the next."""
    path = tmp_path / "a.sock"
    with capture_logs() as lines:
        async with serving(path, add_services):
            path.unlink()
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
            with no_more_descriptors():
                await until(lambda: bool(lines))
            await until(lambda: len(lines) > 1)
            assert await ask(path) == "example.com"
    assert [line["log_level"] for line in lines] == ["error", "warning"]
    assert "Too many open files" in lines[0]["error"]


async def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    """The message has the socket's own path, not the hidden one."""
    path = tmp_path / "s" / "a.sock"
    path.parent.symlink_to("/proc/self/fd")
    with pytest.raises(StartError, match=rf"socket {path}: .*make its folder writable"):
        await serving(path, add_services).__aenter__()


def test_dead_sockets_are_removed_by_name(tmp_path: Path) -> None:
    """A living one, a busy one, a file and a socket of another name stay."""
    dead, unnamed, file = (tmp_path / name for name in ("a-1.sock", "b-1.sock", "a-2.sock"))
    leave_dead_socket(dead)
    leave_dead_socket(unnamed)
    file.write_text("precious")
    living = tmp_path / "a-3.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(living))
        busy.listen(0)
        waiting.connect(str(living))
        remove_dead_sockets(tmp_path, "a-*.sock")
        assert sorted(tmp_path.iterdir()) == sorted([unnamed, file, living])


async def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    """What is no socket was not made by us."""
    path = tmp_path / "a.sock"
    path.write_text("precious")
    with pytest.raises(StartError, match=rf"{path}: something that is no socket is in the way"):
        await serving(path, add_services).__aenter__()
    assert path.read_text() == "precious"


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The kubelet's folder is the kubelet's: it is mounted, never made."""
    path = tmp_path / "plugins_registry" / "a.sock"
    with pytest.raises(StartError, match=rf"folder {path.parent} does not exist; mount"):
        await serving(path, add_services).__aenter__()


async def test_a_path_of_107_bytes_works_and_108_are_refused(tmp_path: Path) -> None:
    """The limit is the kernel's; the message says so instead of gRPC's riddle."""
    room = PATH_LIMIT_BYTES - len(bytes(tmp_path)) - 1
    async with serving(tmp_path / ("s" * room), add_services):
        assert await ask(tmp_path / ("s" * room)) == "example.com"
    with pytest.raises(StartError, match="has 108 bytes and sockets allow 107"):
        await serving(tmp_path / ("s" * (room + 1)), add_services).__aenter__()


async def test_a_message_over_one_mebibyte_is_refused(tmp_path: Path) -> None:
    """Nobody fills our memory through a socket."""
    path = tmp_path / "a.sock"
    async with serving(path, add_services), connected(path) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.NotifyRegistrationStatus(api_pb2.RegistrationStatus(error="x" * (2 << 20)))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await ask(path) == "example.com"


def test_a_private_folder_is_its_owner_s_alone(tmp_path: Path) -> None:
    """Also where it existed with looser rights."""
    folder = tmp_path / "plugins" / "example.com"
    create_private_folder(folder)
    folder.chmod(0o755)
    create_private_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_private_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The message names the folder and the setting."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"file/data: Not a directory; give dataDir"):
        create_private_folder(tmp_path / "file" / "data")
