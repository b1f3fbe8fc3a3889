"""Withdrawing devices: what a claim may hold neither disappears nor changes what it takes.

The scheduler counts an allocated device by what is published of it, so one that is withdrawn, or published with other counters, frees
its GPU while it is in use (kubernetes#140806). A device that is not wanted any more is therefore tainted first and published as it
was, until it is known that nobody has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dra_driver.model.inventory import Fault
from dra_driver.model.names import DRIVER_NAME
from dra_driver.model.slices import Device, ResourceSlice, Taint
from dra_driver.rules.devices import MONITOR_TAINT, PCI_BUS_ID
from dra_driver.rules.draining import DRAINING_TAINT
from dra_driver.rules.health import HEALTH_TAINTS
from dra_driver.rules.pool_layout import DesiredPool, GpuOffer, lay_out, offers_in
from dra_driver.rules.publish import PublishMode

WITHDRAWN_TAINT = f"{DRIVER_NAME}/withdrawn"
"""On a device that goes as soon as nobody uses it."""
UNHEALTHY_TAINT = f"{DRIVER_NAME}/unhealthy"
"""On the devices of a GPU that is there and does not answer."""

_PASSING = frozenset({WITHDRAWN_TAINT, UNHEALTHY_TAINT, DRAINING_TAINT, *HEALTH_TAINTS.values()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What decides over devices that are not wanted. `unused` are those that nobody uses, by what was found out just now."""

    node: str
    mode: PublishMode
    faults: tuple[Fault, ...] = ()
    unused: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """`pool` is what to publish now. `leaving` are the devices in it that are not wanted, or not in the form that they have."""

    pool: DesiredPool
    leaving: frozenset[str] = frozenset()


def withdraw(
    desired: DesiredPool, offered: Sequence[ResourceSlice], situation: Situation
) -> Withdrawal:
    """What to publish, given what claims may have been given until now (`offered`).

    In FULL a leaving device is tainted and keeps its counters, and its GPU's counter set stays as it was. In PLAIN, where neither is kept, it
    stays as a plain device, and new devices of that GPU wait until it is gone.
    """
    old, new = offers_in(offered), offers_in(desired.slices)
    faulty = _faulty(old, new, situation.faults)
    offers: list[GpuOffer] = []
    leaving: set[str] = set()
    for gpu in sorted(old.keys() | new.keys()):
        if gpu in faulty and situation.mode is PublishMode.FULL:
            offers.append(_all_marked(old[gpu], UNHEALTHY_TAINT))
            continue
        staying = _leaving(old.get(gpu), new.get(gpu), situation.mode) - situation.unused
        if staying:
            offers.append(_merged(old[gpu], new.get(gpu), staying, situation.mode))
            leaving |= staying
        elif gpu in new:
            offers.append(new[gpu])
    if offers == list(new.values()):
        return Withdrawal(pool=desired)
    pool = replace(lay_out(desired.name, situation.node, offers), left_out=desired.left_out)
    return Withdrawal(pool=pool, leaving=frozenset(leaving))


def is_marked(device: Device) -> bool:
    """Whether no new claim gets the device, because it is leaving."""
    return any(taint.key == WITHDRAWN_TAINT for taint in device.taints)


def _faulty(
    old: Mapping[str, GpuOffer], new: Mapping[str, GpuOffer], faults: Iterable[Fault]
) -> frozenset[str]:
    """The GPUs that do not answer. A fault that names none of the missing ones may be any of them."""
    missing = {
        str(old[gpu].devices[0].attributes.get(PCI_BUS_ID)): gpu for gpu in old.keys() - new.keys()
    }
    addresses = {fault.pci_address for fault in faults}
    if addresses <= missing.keys():
        return frozenset(missing[address] for address in addresses)
    return frozenset(missing.values())


def _leaving(old: GpuOffer | None, new: GpuOffer | None, mode: PublishMode) -> frozenset[str]:
    """The offered devices that are not wanted as they are: all of them where the counters they share are to change.

    Monitors take nothing, so in PLAIN, which could not keep their taint, they just go.
    """
    if old is None:
        return frozenset()
    wanted = {device.name: _takes(device) for device in new.devices} if new else {}
    return frozenset(
        device.name
        for device in old.devices
        if (_is_recounted(old, new) or wanted.get(device.name) != _takes(device))
        and not (mode is PublishMode.PLAIN and MONITOR_TAINT.key in _taint_keys(device))
    )


def _is_recounted(old: GpuOffer, new: GpuOffer | None) -> bool:
    return new is None or old.counters != new.counters


def _takes(device: Device) -> object:
    """What an allocated device is counted by."""
    return device.consumes, device.allow_multiple_allocations


def _merged(
    old: GpuOffer, new: GpuOffer | None, staying: frozenset[str], mode: PublishMode
) -> GpuOffer:
    """The old offer's staying devices where they were, among those of the new one that do not have to wait for them."""
    present = {device.name for device in old.devices}
    merged = [
        device
        for device in (new.devices if new and not _is_recounted(old, new) else ())
        if device.name not in staying and (mode is PublishMode.FULL or device.name in present)
    ]
    position = 0
    for device in old.devices:
        names = [one.name for one in merged]
        if device.name in staying:
            is_plain = mode is PublishMode.PLAIN
            merged.insert(
                position, _plain(device) if is_plain else _marked(device, WITHDRAWN_TAINT)
            )
            position += 1
        elif device.name in names:
            position = names.index(device.name) + 1
    counters = None if mode is PublishMode.PLAIN else old.counters
    return GpuOffer(gpu=old.gpu, devices=tuple(merged), counters=counters)


def _all_marked(offer: GpuOffer, key: str) -> GpuOffer:
    return replace(offer, devices=tuple(_marked(device, key) for device in offer.devices))


def _marked(device: Device, key: str) -> Device:
    own = tuple(taint for taint in device.taints if taint.key not in _PASSING)
    return replace(device, taints=(*own, Taint(key=key)))


def _plain(device: Device) -> Device:
    return replace(device, consumes=(), taints=())


def _taint_keys(device: Device) -> frozenset[str]:
    return frozenset(taint.key for taint in device.taints)
