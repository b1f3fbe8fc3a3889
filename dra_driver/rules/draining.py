"""Draining: nothing new is given out, what is out stays, and in the end nobody uses the driver.

`dra drain` writes an annotation on a node's ResourceSlices; the node's plugin, which alone writes their contents, answers by
publishing devices that no claim gets any more. The annotation lasts until it is removed from all of the node's slices. The Node carries it, too, for
the time when there are none.
"""

from __future__ import annotations

from dataclasses import replace

from dra_driver.model.slices import Device, ResourceSlice, Taint
from dra_driver.rules.pool_layout import DesiredPool
from dra_driver.rules.publish import PublishMode

DRAIN_ANNOTATION = "gpu.dra-driver.dev/drain"
"""Its value is the time since when, in RFC 3339."""
DRAINING_TAINT = "gpu.dra-driver.dev/draining"


def drained(pool: DesiredPool, since: str, mode: PublishMode) -> DesiredPool:
    """The pool with a taint on every device; where taints are not kept (PLAIN), with no device at all.

    Withdrawing a device that is in use is harmless there: without counters nothing is freed by it.
    """
    if mode is PublishMode.PLAIN:
        first = pool.slices[0]
        empty = replace(first, pool=replace(first.pool, slice_count=1), devices=())
        return replace(pool, slices=(empty,))
    taint = Taint(key=DRAINING_TAINT, effect="NoSchedule", time_added=since)
    return replace(
        pool,
        slices=tuple(
            replace(item, devices=tuple(_tainted(device, taint) for device in item.devices))
            for item in pool.slices
        ),
    )


def is_drained(item: ResourceSlice) -> bool:
    """Whether no new claim gets anything of this slice, by its plugin's own word."""
    return all(
        any(taint.key == DRAINING_TAINT for taint in device.taints) for device in item.devices
    )


def _tainted(device: Device, taint: Taint) -> Device:
    return replace(device, taints=(*device.taints, taint))
