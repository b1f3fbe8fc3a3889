"""Which published device each measurement is about, and who uses that device: joined by UUID."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from dra_driver.model.activity import Activity
from dra_driver.model.device import Gpu
from dra_driver.model.names import gpu_name, partition_name
from dra_driver.model.record import ClaimRecord
from dra_driver.observe.containers import Container
from kubelet_plugin.activity import ActivityWatch, Seen
from kubelet_plugin.state import NodeState


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReading:
    """A GPU or a partition, what it does, and whose it is.

    `partition` and `profile` are empty for the GPU itself; `users` has namespace, claim and pod, the pod empty where none is known.
    """

    pool: str
    gpu: str
    partition: str
    profile: str
    activity: Activity
    users: tuple[tuple[str, str, str], ...]
    containers: Collection[Container]


def device_readings(state: NodeState, watch: ActivityWatch) -> tuple[DeviceReading, ...]:
    """Of every GPU and partition that exists and was measured; of no partition that was made anew since."""
    return tuple(_readings(state, watch))


def _readings(state: NodeState, watch: ActivityWatch) -> Iterator[DeviceReading]:
    partitions, users = _of_records(state.records.values(), watch.pods)
    for pool, inventory in state.inventories.items():
        for gpu in inventory.gpus:
            seen = watch.seen.get(gpu.pci_address)
            if seen is None:
                continue
            names = {gpu.uuid: ("", ""), **_existing(gpu), **partitions}
            for activity in seen.activities:
                if activity.uuid in names:
                    partition, profile = names[activity.uuid]
                    yield DeviceReading(
                        pool=pool,
                        gpu=gpu_name(gpu.pci_address),
                        partition=partition,
                        profile=profile,
                        activity=activity,
                        users=tuple(users.get(activity.uuid, ())),
                        containers=_containers(activity, seen),
                    )


def _of_records(
    records: Collection[ClaimRecord], pods: Mapping[str, Collection[str]]
) -> tuple[dict[str, tuple[str, str]], dict[str, list[tuple[str, str, str]]]]:
    """By UUID the names and profiles of the partitions that claims hold, and the users of all devices; monitors use nothing."""
    partitions: dict[str, tuple[str, str]] = {}
    users: defaultdict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for record in records:
        prepared = record.preparation.devices if record.preparation else ()
        claim = (record.claim.namespace, record.claim.name)
        for grant, device in zip(record.grants, prepared, strict=False):
            if grant.monitor or not device.hardware:
                continue
            uuid = device.hardware[-1]
            users[uuid] += [(*claim, pod) for pod in sorted(pods.get(record.claim.uid, ())) or [""]]
            if grant.profile is not None:
                partitions[uuid] = (grant.device, grant.profile)
    return partitions, users


def _containers(activity: Activity, seen: Seen) -> frozenset[Container]:
    pids = (process.pid for process in activity.processes or ())
    return frozenset(seen.containers[pid] for pid in pids if pid in seen.containers)


def _existing(gpu: Gpu) -> dict[str, tuple[str, str]]:
    """The partitions that the last look at the GPU found."""
    found = {}
    for instance in gpu.instances:
        profile = gpu.partitioning.profile(instance.profile) if gpu.partitioning else None
        if profile is not None and instance.complete:
            name = partition_name(gpu.pci_address, profile, instance.placement)
            found[instance.uuid] = (name, profile.name)
    return found
