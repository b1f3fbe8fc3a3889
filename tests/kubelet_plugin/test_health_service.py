from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dra_driver.wire.health_v1 import api_pb2, api_pb2_grpc
from dra_driver.wire.health_v1alpha1 import api_pb2 as v1alpha1_pb2
from dra_driver.wire.health_v1alpha1 import api_pb2_grpc as v1alpha1_pb2_grpc
from dra_driver.wire.sockets import serving
from kubelet_plugin.health_service import DeviceHealth, Health, HealthBoard, HealthService
from tests.passing_time import pass_time

NODE = "n/nvidia"
LONG_S = 3600.0  # nothing is sent twice for the heartbeat's sake


HEALTHY = DeviceHealth(health=Health.HEALTHY)
LOOK = 1001.5


def sick(message: str = "ECC error") -> DeviceHealth:
    return DeviceHealth(health=Health.UNHEALTHY, message=message)


@asynccontextmanager
async def connected(
    folder: Path, board: HealthBoard, *, timeout_s: float = LONG_S
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of the board's health."""
    path = folder / "dra.sock"
    service = HealthService(board, timeout_s=timeout_s)
    async with (
        serving(path, service.add_to, grace_s=LONG_S),
        grpc.aio.insecure_channel(f"unix:{path}") as channel,
    ):
        yield channel
        board.close()


def watch(channel: grpc.aio.Channel) -> Any:
    """A v1 stream."""
    return api_pb2_grpc.DRAResourceHealthStub(channel).NodeWatchResources(
        api_pb2.NodeWatchResourcesRequest()
    )


def watch_v1alpha1(channel: grpc.aio.Channel) -> Any:
    """A v1alpha1 stream."""
    return v1alpha1_pb2_grpc.DRAResourceHealthStub(channel).NodeWatchResources(
        v1alpha1_pb2.NodeWatchResourcesRequest()
    )


async def read(stream: Any) -> dict[str, str]:
    """The next message: health by device."""
    return told(await asyncio.wait_for(stream.read(), 5))


def told(message: Any) -> dict[str, str]:
    """What a message says: health by device."""
    assert message is not grpc.aio.EOF
    names = type(message).DESCRIPTOR.file.enum_types_by_name["HealthStatus"].values_by_number
    return {d.device.device_name: names[d.health].name for d in message.devices}


@pytest.mark.parametrize("open_stream", [watch, watch_v1alpha1])
async def test_a_device_is_told_field_for_field(tmp_path: Path, open_stream: Any) -> None:
    """Both versions alike: pool, name, health, the look's time, the time-out, and a text for people."""
    board = HealthBoard()
    board.update({(NODE, "gpu-0"): sick("ECC error on bank 3")}, LOOK)
    async with connected(tmp_path, board, timeout_s=45.0) as channel:
        [device] = (await open_stream(channel).read()).devices
        assert (device.device.pool_name, device.device.device_name) == (NODE, "gpu-0")
        assert device.health == api_pb2.HealthStatus.UNHEALTHY
        assert (device.last_updated_time, device.health_check_timeout_seconds) == (1001, 45)
        assert device.message == "ECC error on bank 3"


async def test_a_change_is_told_at_once_and_in_full(tmp_path: Path) -> None:
    """Every message is the whole list; a device that is gone is missing; nothing waits for a heartbeat."""
    board = HealthBoard()
    async with connected(tmp_path, board) as channel:
        stream = watch(channel)
        assert await read(stream) == {}
        board.update({(NODE, "a"): HEALTHY, (NODE, "b"): HEALTHY}, LOOK)
        assert await read(stream) == {"a": "HEALTHY", "b": "HEALTHY"}
        board.update({(NODE, "a"): HEALTHY, (NODE, "b"): sick()}, LOOK)
        assert await read(stream) == {"a": "HEALTHY", "b": "UNHEALTHY"}
        unknown = DeviceHealth(health=Health.UNKNOWN)
        board.update({(NODE, "a"): unknown}, LOOK)
        assert await read(stream) == {"a": "UNKNOWN"}


async def test_a_change_of_the_message_alone_is_told(tmp_path: Path) -> None:
    """Another fault of a device that was sick already."""
    board = HealthBoard()
    board.update({(NODE, "a"): sick("one")}, LOOK)
    async with connected(tmp_path, board) as channel:
        stream = watch(channel)
        assert (await stream.read()).devices[0].message == "one"
        board.update({(NODE, "a"): sick("two")}, LOOK)
        assert (await stream.read()).devices[0].message == "two"


async def test_a_look_that_finds_the_same_waits_for_the_heartbeat(tmp_path: Path) -> None:
    """Its time is told with the next message, whatever causes that: looks do not wake the kubelet."""
    board = HealthBoard()
    board.update({(NODE, "a"): HEALTHY}, 1000)
    async with connected(tmp_path, board) as channel:
        stream = watch(channel)
        assert (await stream.read()).devices[0].last_updated_time == 1000
        for time in range(2000, 2010):
            board.update({(NODE, "a"): HEALTHY}, time)
        board.update({(NODE, "a"): HEALTHY, (NODE, "b"): HEALTHY}, 3000)
        assert [d.last_updated_time for d in (await stream.read()).devices] == [3000, 3000]


async def test_a_device_that_was_not_seen_keeps_its_time(tmp_path: Path) -> None:
    """For as many looks as it takes: the kubelet stops believing what nobody has seen, and of that device alone."""
    board, both = HealthBoard(), {(NODE, "a"): HEALTHY, (NODE, "b"): HEALTHY}
    board.update(both, 1000)
    board.update(both, 2000, unseen=[(NODE, "a")])
    board.update(both, 3000, unseen=[(NODE, "a")])
    async with connected(tmp_path, board) as channel:
        found = {d.device.device_name: d for d in (await watch(channel).read()).devices}
        assert {name: d.last_updated_time for name, d in found.items()} == {"a": 1000, "b": 3000}
    board.update({**both, (NODE, "a"): sick()}, 4000, unseen=[(NODE, "a")])
    assert board.seen_at_s((NODE, "a")) == 4000, "what is news was seen just now"
    board.update(both, 5000)
    assert board.seen_at_s((NODE, "a")) == 5000


async def test_health_is_told_again_at_a_third_of_its_time_out(tmp_path: Path) -> None:
    """Without any change: the kubelet stops believing what it has not heard for the time-out."""
    board = HealthBoard()
    board.update({(NODE, "a"): HEALTHY}, LOOK)
    async with connected(tmp_path, board, timeout_s=900) as channel:
        stream = watch(channel)
        await read(stream)
        for _ in range(2):
            following, passed_s = asyncio.ensure_future(stream.read()), 0
            while not following.done():
                pass_time(10)
                passed_s += 10
                await asyncio.sleep(0.05)
            assert told(await following) == {"a": "HEALTHY"}
            assert 250 < passed_s < 600


async def test_two_streams_hear_the_same_and_one_that_hangs_up_harms_nobody(tmp_path: Path) -> None:
    """A kubelet that restarts, or two of different versions; then its stream is gone and the other goes on."""
    board = HealthBoard()
    async with connected(tmp_path, board) as channel:
        one, two = watch(channel), watch_v1alpha1(channel)
        assert await read(one) == await read(two) == {}
        board.update({(NODE, "a"): sick()}, LOOK)
        assert await read(one) == await read(two) == {"a": "UNHEALTHY"}
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one.read()
        board.update({(NODE, "a"): HEALTHY}, LOOK)
        assert await read(two) == {"a": "HEALTHY"}


async def test_a_stream_that_comes_later_hears_what_is(tmp_path: Path) -> None:
    """At once, not with the next change."""
    board = HealthBoard()
    board.update({(NODE, "a"): HEALTHY}, LOOK)
    async with connected(tmp_path, board) as channel:
        assert await read(watch(channel)) == {"a": "HEALTHY"}


async def test_closing_the_board_ends_every_stream(tmp_path: Path) -> None:
    """With the end of the stream and no error; the server then stops without waiting for its grace."""
    board = HealthBoard()
    async with asyncio.timeout(5), connected(tmp_path, board) as channel:
        streams = [watch(channel), watch_v1alpha1(channel)]
        for stream in streams:
            await read(stream)
        board.close()
        for stream in streams:
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK
        assert await watch(channel).read() is grpc.aio.EOF


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("x" * 1024, "x" * 1024),
        ("x" * 1025, "x" * 1021 + "..."),
        ("é" * 600, "é" * 510 + "..."),
        ("bad \udcff", "bad ?"),
    ],
    ids=["fits", "too long", "counted in bytes", "no text"],
)
async def test_a_message_fits_into_1024_bytes(tmp_path: Path, message: str, told: str) -> None:
    """Cut between characters with an ellipsis; bytes that are no text do not end the stream."""
    board = HealthBoard()
    board.update({(NODE, "a"): sick(message)}, LOOK)
    async with connected(tmp_path, board) as channel:
        assert (await watch(channel).read()).devices[0].message == told
