"""NVML of each kind that there is: what the driver relies on must hold on all of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import TypeAlias

import pynvml
import pytest

from dra_driver.config.machine import Machine
from dra_driver.vendors.nvidia.driver_root import DriverRoot
from dra_driver.vendors.nvidia.nvml_library import NvmlLibrary
from dra_driver.vendors.nvidia.sdk import PynvmlNvml
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.vendors.nvidia.simulated_gpu import simulated_gpus
from tests.vendors.nvidia.contract.benches import Bench, FakeBench, SimulatedBench
from tests.vendors.nvidia.contract.boards import MODELS
from tests.vendors.nvidia.fake.machine import FakeHost

Hardware: TypeAlias = Callable[..., NvmlLibrary]
Hosts: TypeAlias = Callable[..., FakeHost]
Benches: TypeAlias = Callable[..., Bench]
FakeBenches: TypeAlias = Callable[..., FakeBench]
OnHost: TypeAlias = Callable[[FakeHost], PynvmlNvml]

KINDS = ("simulated", "c-fake")


@pytest.fixture
def fake_host(tmp_path: Path) -> Hosts:
    """`fake_host(model="A30", mode="mig", count=2)`: a host with such GPUs, answered for by the C library."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed, and builds the fake libnvidia-ml.so.1")

    def build(**spec: object) -> FakeHost:
        machine = Machine.model_validate(
            {
                "apiVersion": "gpu.dra-driver.dev/v1alpha1",
                "kind": "Machine",
                "name": "bench",
                "gpus": [{"vendor": "nvidia", "model": "H100-SXM5-80GB", **spec}],
            }
        )
        return FakeHost(tmp_path / "host", simulated_gpus(machine, "node-a"))

    return build


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[OnHost]:
    """NVML as this process gets it on that host: through pynvml and ctypes, from the library that the host has."""
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    with ExitStack() as stack:

        def build(host: FakeHost) -> PynvmlNvml:
            nvml = PynvmlNvml(DriverRoot(host_root=host.root))
            stack.callback(nvml.close)
            return nvml

        yield build


@pytest.fixture(params=KINDS)
def hardware(request: pytest.FixtureRequest) -> Hardware:
    """`hardware(model="A30", mode="mig", count=2)`: NVML of such a machine, simulated in Python or in C."""
    return _hardware(request, request.param)


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest) -> Benches:
    """`bench(model="A30", mode="mig", count=2)`: as `hardware`, for tests that change how the first GPU is and what it does."""
    folder: Path = request.getfixturevalue("tmp_path")

    def build(**spec: object) -> Bench:
        if request.param == "simulated":
            simulate: Callable[..., SimulatedNvml] = request.getfixturevalue("simulate")
            return SimulatedBench(simulate(**spec), folder / "gpus")
        fake_bench: FakeBenches = request.getfixturevalue("fake_bench")
        return fake_bench(**spec)

    return build


@pytest.fixture
def fake_bench(fake_host: Hosts, on_host: OnHost) -> FakeBenches:
    """As `bench`, of the C library only."""

    def build(**spec: object) -> FakeBench:
        host = fake_host(**spec)
        return FakeBench(on_host(host), host)

    return build


@pytest.fixture(params=[*product(KINDS, MODELS), ("real", "")], ids="-".join)
def readable(request: pytest.FixtureRequest) -> Iterator[NvmlLibrary]:
    """NVML with two GPUs of each board, and that of this machine's own GPUs, which nobody may change."""
    kind, model = request.param
    if kind != "real":
        yield _hardware(request, kind)(model=model, count=2)
        return
    if not Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has no NVIDIA GPU")
    own = PynvmlNvml(DriverRoot())
    yield own
    own.close()


def _hardware(request: pytest.FixtureRequest, kind: str) -> Hardware:
    if kind == "simulated":
        simulate: Callable[..., SimulatedNvml] = request.getfixturevalue("simulate")
        return simulate
    fake_host: Hosts = request.getfixturevalue("fake_host")
    on_host: OnHost = request.getfixturevalue("on_host")
    return lambda **spec: on_host(fake_host(**spec))
