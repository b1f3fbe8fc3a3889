import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest

from dra_driver.model.errors import StartError
from dra_driver.wire.registration_v1 import api_pb2, api_pb2_grpc
from dra_driver.wire.sockets import PATH_LIMIT_BYTES, create_private_folder, serving
from kubelet_plugin.registration import Registration


def add_services(server: grpc.aio.Server) -> None:
    Registration(driver="example.com", endpoint=Path("/dra.sock")).add_to(server)


async def ask(path: Path) -> str:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        stub = api_pb2_grpc.RegistrationStub(channel)
        return (await stub.GetInfo(api_pb2.InfoRequest(), timeout=5)).name


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
    async with serving(path, add_services), grpc.aio.insecure_channel(f"unix:{path}") as channel:
        stub = api_pb2_grpc.RegistrationStub(channel)
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
