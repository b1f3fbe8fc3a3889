"""Which backends run on this node: the vendors whose driver is loaded, or those of a simulated machine."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from dra_driver.config.machine import Machine, load_machine
from dra_driver.config.settings import PluginSettings
from dra_driver.journal.store import read_boot_id
from dra_driver.model.device import Vendor
from dra_driver.model.errors import StartError
from dra_driver.model.names import pool_name
from dra_driver.ports import Backend
from dra_driver.vendors.amd.backend import AmdBackend
from dra_driver.vendors.amd.sdk import Sysfs
from dra_driver.vendors.amd.simulated import build_tree
from dra_driver.vendors.amd.simulated_faults import SimulatedSysfs
from dra_driver.vendors.handovers import Handovers
from dra_driver.vendors.holders import Holder, holders
from dra_driver.vendors.null_devices import NullDevices
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.driver_edits import DriverEdits
from dra_driver.vendors.nvidia.driver_root import DriverRoot
from dra_driver.vendors.nvidia.driver_search import DriverSearch
from dra_driver.vendors.nvidia.host import DriverHost
from dra_driver.vendors.nvidia.sdk import PynvmlNvml
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.vendors.passthrough import PassthroughBackend
from dra_driver.vendors.vfio import Vfio
from dra_driver.vendors.vfio_simulated import SimulatedBus


def open_backends(settings: PluginSettings, *, only_looks: bool = False) -> dict[str, Backend]:
    """Backends by the name of the pool that each fills; who `only_looks` at GPUs runs no program and writes no file for containers.

    MachineError for an impossible simulated machine, StartError where its state cannot be kept.
    """
    if settings.machine is None:
        backends = _real(settings, only_looks=only_looks)
    else:
        machine = load_machine(settings.machine)
        try:
            backends = _simulated(machine, settings)
        except OSError as error:
            raise StartError(
                f"folder {settings.simulation_dir}: {error.strerror}; give simulationDir a path that this user may write"
            ) from error
    return {pool_name(settings.node_name, backend.vendor): backend for backend in backends}


def _simulated(machine: Machine, settings: PluginSettings) -> list[Backend]:
    vendors = {gpu.vendor for gpu in machine.gpus}
    backends: list[Backend] = []
    if Vendor.NVIDIA in vendors:
        folder = settings.simulation_dir / "nvidia"
        backends.append(_simulated_nvidia(machine, settings, folder))
    if Vendor.AMD in vendors:
        sysfs = build_tree(machine, node=settings.node_name, folder=settings.simulation_dir / "amd")
        backends.append(AmdBackend(SimulatedSysfs(sysfs)))
    return [NullDevices(backend, settings.simulation_dir) for backend in backends]


def _simulated_nvidia(machine: Machine, settings: PluginSettings, folder: Path) -> Backend:
    """NVML alone; or, once somebody offered its GPUs to virtual machines, with the sysfs that takes them away from it."""
    sys = settings.simulation_dir / "sys"
    is_offered = settings.passthrough == "offer"
    if not (is_offered or sys.exists()):
        nvml = SimulatedNvml(machine, node=settings.node_name, state_dir=folder)
        return NvidiaBackend(nvml, splits=_splits(settings))
    driver = sys / "bus/pci/drivers/nvidia"
    nvml = SimulatedNvml(machine, node=settings.node_name, state_dir=folder, driver=driver)
    bus = SimulatedBus(sys, nvml.faults.gpus, driver.name)

    def using(address: str, _: Collection[str]) -> tuple[Holder, ...]:
        is_busy = nvml.faults.of(address).busy
        return (Holder(pid=1, name="a simulated process"),) if is_busy else ()

    return PassthroughBackend(
        NvidiaBackend(nvml, splits=_splits(settings)),
        Vfio(sys, bus.write),
        _handovers(settings),
        using,
        offered=is_offered,
    )


def _real(settings: PluginSettings, *, only_looks: bool) -> list[Backend]:
    root = settings.host_root
    backends: list[Backend] = []
    if (root / "proc/driver/nvidia").exists():
        driver_root = DriverRoot(configured=settings.nvidia_driver_root, host_root=root)
        host = None if only_looks else _nvidia_host(settings, driver_root)
        nvml = PynvmlNvml(driver_root)
        backends.append(NvidiaBackend(nvml, host, splits=_splits(settings)))
    if (root / "sys/module/amdgpu").exists():
        backends.append(AmdBackend(Sysfs(root / "sys")))
    return [
        PassthroughBackend(
            backend,
            Vfio(root / "sys"),
            _handovers(settings),
            lambda _, nodes: holders(root / "proc", nodes),
            offered=settings.passthrough == "offer",
        )
        for backend in backends
    ]


def _nvidia_host(settings: PluginSettings, root: DriverRoot) -> DriverHost:
    file = settings.data_dir / "nvidia-driver.json"
    search = DriverSearch(root, kept_in=file, toolkit=settings.nvidia_ctk_path)
    return DriverHost(root, DriverEdits(search))


def _splits(settings: PluginSettings) -> tuple[str, ...]:
    named = settings.mig_compute_instances
    return tuple(named.split(",")) if named else ()


def _handovers(settings: PluginSettings) -> Handovers:
    return Handovers(settings.data_dir / "passthrough", read_boot_id())
