"""What must hold after every fault, I1 to I8, judged from outside: never by asking the plugin.

    I1  no device is held by two claims at once, half-done ones included; monitors exclude nobody
    I2  prepare said OK: the claim's record is durable and whole, its CDI ids resolve now, its hardware is there
    I3  a CDI file or an instance of ours has a record; nothing else lies about; once settled, no work is half done
    I4  unprepare said OK: nothing of the claim is left; and nobody else's hardware was touched
    I5  the published slices are complete, and are what the hardware can become
    I6  what was written of a record stays as it was written: lines are added, never changed
    I7  no call is refused for a GPU that is none of its claim's
    I8  state never vanishes by itself: a claim that was promised something has a record, or a damaged one

`violations` compares what the plugin has said so far (`ledger`) with one look at the outside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

from dra_driver.model.errors import VendorError
from dra_driver.model.record import Grant
from dra_driver.rules.forms import made_instances
from dra_driver.rules.publish import PublishMode, desired_pool
from tests.faults.ledger import Ledger
from tests.faults.outside import Outside

DEVICES_PER_GPU = 64


class Violation(NamedTuple):
    """Which invariant is broken, and how."""

    invariant: str
    message: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.message}"


def violations(outside: Outside, ledger: Ledger, *, settled: bool) -> list[Violation]:
    """Everything that is wrong. `settled`: the plugin has had its time to clean up after its predecessor."""
    checks: Mapping[str, Iterator[str]] = {
        "I1": _double_grants(outside),
        "I2": _broken_promises(outside, ledger, settled=settled),
        "I3": _orphans(outside, ledger, settled=settled),
        "I4": _trespasses(outside, ledger),
        "I5": _publication(outside) if settled else iter(()),
        "I6": _rewritten(outside, ledger),
        "I7": _infections(outside, ledger),
        "I8": _vanished(outside, ledger),
    }
    return [Violation(name, message) for name, found in checks.items() for message in found]


def _double_grants(outside: Outside) -> Iterator[str]:
    holders = [(uid, grant) for uid, record in outside.records.items() for grant in record.grants]
    for (uid, one), (other_uid, other) in combinations(holders, 2):
        if one.gpu == other.gpu and not (one.monitor or other.monitor) and _overlap(one, other):
            yield f"{one.device} of claim {uid} and {other.device} of claim {other_uid}"


def _overlap(one: Grant, other: Grant) -> bool:
    if one.placement is None or other.placement is None:
        return True
    if (one.profile, one.placement.undivided) == (other.profile, other.placement.undivided):
        return one.placement.part == other.placement.part
    first, second = sorted((one.placement, other.placement))
    return first.start + first.size > second.start


def _broken_promises(outside: Outside, ledger: Ledger, *, settled: bool) -> Iterator[str]:
    to_be_mended = frozenset[str]() if settled else ledger.damaged
    for uid in ledger.held.keys() - to_be_mended:
        told, record = ledger.held[uid], outside.records.get(uid)
        if record is None or record.preparation is None or record.releasing:
            yield f"claim {uid} was prepared and has no whole record"
            continue
        recorded = {(d.pool, d.device, d.cdi_ids) for d in record.preparation.devices}
        if recorded != set(told):
            yield f"claim {uid} was told {set(told)} and its record says {recorded}"
        allocated = outside.allocations.get(uid)
        if allocated is not None and {(one.pool, one.device) for one in told} != allocated:
            yield f"claim {uid} was told {told} and was allocated {sorted(allocated)}"
        unresolved = {i for one in told for i in one.cdi_ids} - outside.cdi.get(uid, frozenset())
        if unresolved:
            yield f"CDI ids of claim {uid} resolve to nothing: {', '.join(sorted(unresolved))}"
        present = _present_uuids(outside)
        for device in record.preparation.devices:
            if not device.hardware or not present.issuperset(device.hardware):
                yield f"{device.device} of claim {uid} is on no GPU: {', '.join(device.hardware)}"


def _present_uuids(outside: Outside) -> set[str]:
    gpus = outside.inventory.gpus
    return {gpu.uuid for gpu in gpus} | {i.uuid for gpu in gpus for i in gpu.instances}


def _orphans(outside: Outside, ledger: Ledger, *, settled: bool) -> Iterator[str]:
    known = outside.records.keys() | outside.damaged
    for uid in outside.cdi.keys() - known:
        yield f"the CDI file of claim {uid} has no record"
    made = made_instances(outside.records.values())
    theirs = {(gpu, instance.uuid) for gpu, instance in ledger.foreign}
    for gpu in outside.inventory.gpus:
        for instance in gpu.instances:
            whose = (gpu.pci_address, instance.profile, instance.placement)
            is_foreign = (gpu.pci_address, instance.uuid) in theirs
            if whose not in made and not is_foreign and not outside.damaged:
                yield f"instance {instance.identity} ({instance.profile}) on {gpu.pci_address} has no record"
    if settled:
        yield from (f"{path} is nobody's" for path in outside.litter)
        yield from (
            f"work on claim {uid} is half done"
            for uid, record in outside.records.items()
            if (record.preparation is None or record.releasing) and uid not in ledger.refused
        )


def _trespasses(outside: Outside, ledger: Ledger) -> Iterator[str]:
    for uid in ledger.released & (outside.records.keys() | outside.cdi.keys()):
        yield f"claim {uid} was unprepared and is still there"
    for address, instance in ledger.foreign:
        gpu = outside.gpu(address)
        if gpu is not None and instance not in gpu.instances:
            yield f"instance {instance.identity} on {address} is somebody else's, and was touched"
    for uid, hardware in ledger.hardware.items():
        record = outside.records.get(uid)
        if uid in ledger.held and record is not None and record.preparation is not None:
            now = tuple(device.hardware for device in record.preparation.devices)
            if now != hardware:
                yield f"claim {uid} had {hardware} and has {now}"


def _publication(outside: Outside) -> Iterator[str]:
    if outside.slices is None:
        return
    desired = desired_pool(
        outside.node,
        outside.inventory,
        made_instances(outside.records.values()),
        PublishMode.FULL,
        DEVICES_PER_GPU,
    )
    wanted = {device.name for item in desired.slices for device in item.devices}
    pools: defaultdict[str, list[Mapping[str, object]]] = defaultdict(list)
    published: set[str] = set()
    for item in outside.slices:
        pool = item["spec"]["pool"]
        pools[pool["name"]].append(pool)
        published |= {device["name"] for device in item["spec"].get("devices", ())}
    if set(pools) != {desired.name}:
        yield f"pools {sorted(pools)} are published, not {desired.name}"
    for name, refs in pools.items():
        if (
            len({one["generation"] for one in refs}) != 1
            or len(refs) != refs[0]["resourceSliceCount"]
        ):
            yield f"pool {name} is incomplete: {refs}"
    if published != wanted:
        yield f"published and not there: {published - wanted}; not published: {wanted - published}"


def _rewritten(outside: Outside, ledger: Ledger) -> Iterator[str]:
    for uid, before in ledger.written.items():
        now = outside.journal.get(uid)
        if now is not None and uid not in ledger.damaged and not now.startswith(before):
            yield f"the record of claim {uid} was rewritten"


def _infections(outside: Outside, ledger: Ledger) -> Iterator[str]:
    for uid, error in ledger.refused.items():
        devices = {device for _, device in outside.allocations.get(uid, ())}
        sick = [address for address in ledger.broken if _concerns(address, devices)]
        if not sick and error.startswith((VendorError.reason, "InternalError")):
            yield f"claim {uid} has no broken GPU and was refused: {error}"


def _concerns(address: str, devices: Collection[str]) -> bool:
    prefix = f"gpu-{address.replace(':', '-').replace('.', '-')}"
    return any(device == prefix or device.startswith(f"{prefix}-") for device in devices)


def _vanished(outside: Outside, ledger: Ledger) -> Iterator[str]:
    for uid in ledger.held.keys() - outside.records.keys() - outside.damaged:
        yield f"claim {uid} was prepared, and nothing remembers it"
    for uid in sorted(outside.damaged - ledger.damaged):
        yield f"the record of claim {uid} is damaged, and nobody has damaged it on purpose"
