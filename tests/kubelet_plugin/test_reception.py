"""The registration socket in its thread."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc.aio
import pytest

from dra_driver.model.errors import StartError, root_cause
from kubelet_plugin.reception import receiving
from kubelet_plugin.registration import Registration


class Ending(Registration):
    """Whose loop ends by itself a little after the start."""

    def add_to(self, server: grpc.aio.Server) -> None:
        super().add_to(server)
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.2, task.cancel)


async def test_a_process_does_not_go_on_without_its_registration(tmp_path: Path) -> None:
    """Its thread ends by itself: the block is left at once with an error that names the socket."""
    path = tmp_path / "reg.sock"
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(serve(path), 20)
    error = root_cause(caught.value)
    assert isinstance(error, StartError)
    assert str(error).startswith(f"socket {path}: its thread has ended")


async def serve(path: Path) -> None:
    """As long as the registration answers there."""
    async with receiving(path, Ending(driver="example.com", endpoint=path)):
        await asyncio.Event().wait()


async def test_who_cannot_listen_is_told(tmp_path: Path) -> None:
    """By the error of the socket itself."""
    path = tmp_path / "missing" / "reg.sock"
    with pytest.raises(StartError, match="does not exist; mount"):
        await receiving(path, Ending(driver="example.com", endpoint=path)).__aenter__()
