"""Looks at how NVIDIA GPUs are, each with an event set of its own, which is read without waiting.

One set for all, waited for in a thread, would tell of an XID seconds sooner. But that thread would be inside NVML all the time, so
that NVML could never be initialised anew (see `session`), and one lost GPU would end the wait for all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dra_driver.model.device import Placement
from dra_driver.model.health import Ailment, Severity
from dra_driver.vendors.nvidia.diagnosis import (
    LOSSES,
    Reading,
    ailment_of_loss,
    ailment_of_xid,
    ailments_in,
)
from dra_driver.vendors.nvidia.discovery import explained
from dra_driver.vendors.nvidia.nvml import Code, Handle, MigMode, NvmlError
from dra_driver.vendors.nvidia.nvml_health import DiagnosingNvml, Field, XidEvent
from dra_driver.vendors.nvidia.xids import APPLICATION_XIDS

T = TypeVar("T")

_NOT_OFFERED = frozenset(
    {Code.NOT_SUPPORTED, Code.FUNCTION_NOT_FOUND, Code.INVALID_ARGUMENT, Code.NO_PERMISSION}
)
_RESET = frozenset(
    {
        Code.DRIVER_NOT_LOADED,
        Code.GPU_IS_LOST,
        Code.RESET_REQUIRED,
        Code.LIB_RM_VERSION_MISMATCH,
        Code.NOT_FOUND,
    }
)
"""A GPU that answers after one of these was reset, or its driver loaded anew: what it reported before is over."""
LOOKS_PER_STATE = 5
"""Links and heat are asked for this seldom: nothing is lost in between, and an idle node must cost nothing."""
_MOST_EVENTS = 64
"""Taken out of a set at one look: a GPU that reports faster than that must not keep its thread."""


@dataclass(slots=True)
class _Watched:
    """One GPU. `standing` are the errors that only a reset ends; `links` is the most that were up; `xid` is the latest of the hardware's.

    `is_over`: the GPU has been away meanwhile.
    """

    events: Handle = None
    is_over: bool = False
    xid: int | None = None
    standing: dict[tuple[int, Placement | None], Ailment] = field(default_factory=dict)
    ecc_errors: int | None = None
    links: int = 0
    links_lost: int = 0
    clock_reasons: int = 0
    looks: int = 0


class HealthWatch:
    """Remembers, per GPU, what NVML says only once. Calls about one GPU come one after the other."""

    def __init__(self, nvml: DiagnosingNvml) -> None:
        self._nvml = nvml
        self._watched: dict[str, _Watched] = {}

    def look(self, pci_address: str) -> tuple[Ailment, ...]:
        """What the GPU suffers from now, also where the driver has lost it; NvmlError if it does not tell."""
        watched = self._of(pci_address)
        try:
            with explained(f"GPU {pci_address}: asking for its health"):
                gpu = self._nvml.gpu_by_address(pci_address)
                reading = self._read(gpu, watched)
                xids = [one for one in self._xids(gpu, watched) if one.xid not in APPLICATION_XIDS]
        except NvmlError as error:
            if error.code in _RESET:
                watched.is_over = True
            if error.code in LOSSES:
                return (ailment_of_loss(error.code),)
            raise
        watched.ecc_errors = reading.fields.get(Field.ECC_UNCORRECTED_VOLATILE, watched.ecc_errors)
        if Field.RECOVERY_ACTION not in reading.fields:
            return (*ailments_in(reading), *self._told_by(gpu, watched, xids))
        if xids:
            watched.xid = xids[-1].xid
        elif not reading.fields[Field.RECOVERY_ACTION]:
            watched.xid = None
        return tuple(ailments_in(replace(reading, xid=watched.xid)))

    def let_go(self, pci_address: str) -> None:
        """Hold nothing of the GPU until the next look, so that its mode can change; its links may be others afterwards.

        An XID in between is heard of only through the action that the driver recommends.
        """
        watched = self._watched.get(pci_address)
        if watched is not None:
            watched.links = watched.links_lost = 0
            self._close(watched)

    def keep_only(self, addresses: Collection[str]) -> None:
        """What is known of other GPUs is over: what comes back was reset. May be called beside looks."""
        for address in set(self._watched).difference(addresses):
            self._watched[address].is_over = True

    def _of(self, pci_address: str) -> _Watched:
        """What is known of the GPU. Its former event set is given back here, as nobody else may be reading it."""
        known = self._watched.get(pci_address)
        if known is None or known.is_over:
            if known is not None:
                self._close(known)
            known = self._watched[pci_address] = _Watched()
        return known

    def _close(self, watched: _Watched) -> None:
        events, watched.events = watched.events, None
        if events is not None:
            with suppress(NvmlError):
                self._nvml.health.close_events(events)

    def _read(self, gpu: Handle, watched: _Watched) -> Reading:
        health = self._nvml.health
        fields: Mapping[Field, int] = _offered(lambda: health.field_values(gpu, tuple(Field)), {})
        if watched.looks % LOOKS_PER_STATE == 0:
            watched.links_lost = self._links_lost(gpu, watched)
            watched.clock_reasons = _offered(lambda: self._nvml.activity.clock_reasons(gpu), 0)
        watched.looks += 1
        return Reading(
            fields=fields,
            has_new_ecc_errors=watched.ecc_errors is not None
            and fields.get(Field.ECC_UNCORRECTED_VOLATILE, 0) > watched.ecc_errors,
            links_lost=watched.links_lost,
            clock_reasons=watched.clock_reasons,
        )

    def _links_lost(self, gpu: Handle, watched: _Watched) -> int:
        """GPUs in MIG mode have no use for their links, and may say that they are down."""
        links = _offered(lambda: self._nvml.health.active_links(gpu), 0)
        watched.links = max(watched.links, links)
        if links == watched.links:
            return 0
        in_mig = _offered(lambda: self._nvml.mig_mode(gpu)[0] == MigMode.ENABLED, False)  # noqa: FBT003 (the default)
        return 0 if in_mig else watched.links - links

    def _xids(self, gpu: Handle, watched: _Watched) -> list[XidEvent]:
        """What was reported since the last look. A failure hides nothing that was taken out of the set before it, and ends the set."""
        health = self._nvml.health
        if watched.events is None:
            watched.events = _offered(lambda: health.open_events(gpu), None)
        found: list[XidEvent] = []
        while watched.events is not None and len(found) < _MOST_EVENTS:
            try:
                event = health.next_event(watched.events)
            except NvmlError as error:
                if found:
                    break
                self._close(watched)
                if error.code != Code.UNINITIALIZED:
                    raise
                watched.events = _offered(lambda: health.open_events(gpu), None)
                break  # NVML was initialised anew, which voids all sets
            if event is None:
                break
            found.append(event)
        return found

    def _told_by(self, gpu: Handle, watched: _Watched, xids: list[XidEvent]) -> Iterator[Ailment]:
        """The errors that stand, and those of now that pass by themselves."""
        passing: dict[tuple[int, Placement | None], Ailment] = {}
        for event in xids:
            place = self._placement(gpu, event)
            ailment = ailment_of_xid(event.xid, place)
            is_broken = ailment.severity is Severity.BROKEN
            (watched.standing if is_broken else passing)[event.xid, place] = ailment
        yield from watched.standing.values()
        yield from passing.values()

    def _placement(self, gpu: Handle, event: XidEvent) -> Placement | None:
        """Where the event's instance is; None for the whole GPU, and for an instance that is gone and does not say where it was."""
        number = event.instance
        if number is None:
            return None
        try:
            instance = self._nvml.gpu_instance(gpu, number)
            return self._nvml.gpu_instance_info(instance).placement
        except NvmlError:
            return None


def _offered(ask: Callable[[], T], otherwise: T) -> T:
    """The answer; `otherwise` where this GPU or driver does not offer it, which is no news."""
    try:
        return ask()
    except NvmlError as error:
        if error.code in _NOT_OFFERED:
            return otherwise
        raise
