"""Records this node's hardware as a machine profile, so that others can simulate it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from dra_driver.config.machine import GpuSpec, InstanceSpec, Machine
from dra_driver.config.settings import PluginSettings
from dra_driver.model.device import Gpu
from dra_driver.model.errors import MachineError
from dra_driver.vendors.catalogue import model_of
from kubelet_plugin.inspection import look_at_hardware, look_at_health

_NEVER_RECORDED = frozenset(
    {"pci_address", "uuid", "index", "driver_version", "numa_node", "pcie_root", "extras"}
)
"""What is each machine's own: a simulation makes up its own addresses, UUIDs and versions."""
_MOST_EQUAL = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """A profile in YAML, what of the hardware it does not say, and what the GPUs suffer from."""

    profile: str
    omissions: tuple[str, ...]
    ailments: tuple[str, ...]


def gather(settings: PluginSettings) -> Gathered:
    """The profile of the hardware that is there now. It was simulated and compared, so `--machine` accepts it.

    MachineError where nothing on this node can be simulated.
    """
    inventories = look_at_hardware(settings)
    gpus = [gpu for inventory in inventories.values() for gpu in inventory.gpus]
    faults = [fault for inventory in inventories.values() for fault in inventory.faults]
    known = [gpu for gpu in gpus if model_of(gpu) is not None]
    omissions = [f"GPU {one.pci_address} is left out: {one.message}" for one in faults]
    omissions += [
        f"GPU {gpu.pci_address} is left out: no profile can name a {gpu.product_name!r}"
        for gpu in gpus
        if gpu not in known
    ]
    if not known:
        found = "; ".join(omissions) or "no GPU driver is loaded"
        raise MachineError(f"node {settings.node_name} has no GPU to describe: {found}")
    profile = _render(settings.node_name, known)
    omissions += _differences(known, _simulated(settings, profile))
    ailments = tuple(
        f"GPU {address} is not well: {one.message}"
        for address, found in look_at_health(settings).items()
        for one in found
    )
    return Gathered(profile=profile, omissions=tuple(omissions), ailments=ailments)


def _render(name: str, gpus: Sequence[Gpu]) -> str:
    machine = Machine(
        api_version="gpu.dra-driver.dev/v1alpha1",
        kind="Machine",
        name=name,
        gpus=tuple(
            spec.model_copy(update={"count": count})
            for spec, equal in groupby(map(_spec, gpus))
            for count in _portions(len(list(equal)))
        ),
    )
    document = machine.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False)


def _portions(count: int) -> Iterator[int]:
    full, rest = divmod(count, _MOST_EQUAL)
    yield from (_MOST_EQUAL,) * full
    if rest:
        yield rest


def _spec(gpu: Gpu) -> GpuSpec:
    cuts = gpu.partitioning
    wholes = {one.name for one in cuts.profiles} if cuts else set()
    return GpuSpec(
        vendor=gpu.vendor,
        model=model_of(gpu) or "",
        mode=cuts.mode if cuts and cuts.mode != cuts.whole_mode else None,
        instances=tuple(
            InstanceSpec(profile=one.profile, start=one.placement.start)
            for one in gpu.instances
            if one.complete and one.profile in wholes
        ),
    )


def _simulated(settings: PluginSettings, profile: str) -> list[Gpu]:
    with TemporaryDirectory(prefix="dra-gather-") as name:
        file = Path(name) / "machine.yaml"
        file.write_text(profile)
        simulation = {"machine": str(file), "simulation_dir": Path(name) / "simulation"}
        inventories = look_at_hardware(settings.model_copy(update=simulation))
    return [gpu for inventory in inventories.values() for gpu in inventory.gpus]


def _differences(real: Sequence[Gpu], simulated: Sequence[Gpu]) -> Iterator[str]:
    for one, other in zip(real, simulated, strict=True):
        for field in fields(Gpu):
            ours, theirs = _comparable(one, field.name), _comparable(other, field.name)
            if field.name not in _NEVER_RECORDED and ours != theirs:
                yield f"GPU {one.pci_address} has {field.name} {ours}, and {theirs} when simulated"


def _comparable(gpu: Gpu, field: str) -> object:
    if field == "instances":
        return [(i.profile, i.placement.start, i.complete) for i in gpu.instances]
    if field == "partitioning" and gpu.partitioning is not None:
        return {one.name: dict(one.consumes) for one in gpu.partitioning.profiles}
    return getattr(gpu, field)
