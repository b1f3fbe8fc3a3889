"""GPUs of any vendor for virtual machines: a backend around the vendor's own, which hands them to vfio-pci and takes them back.

While vfio-pci has a GPU its own driver does not know it, so it is what was known of it before. It is not lost: its devices stay
published, on the same counters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final, TypeAlias

import structlog

from dra_driver.model.activity import Activity
from dra_driver.model.device import (
    BindPassthrough,
    Gpu,
    PartitionChange,
    Passthrough,
    Target,
    UnbindPassthrough,
    Vendor,
)
from dra_driver.model.edits import ContainerEdits, DeviceNode, SharedEdits
from dra_driver.model.errors import VendorError
from dra_driver.model.health import Ailment
from dra_driver.model.names import device_variable
from dra_driver.ports import Backend
from dra_driver.vendors.handovers import Handover, Handovers
from dra_driver.vendors.holders import Holder
from dra_driver.vendors.vfio import DRIVER, Vfio

Holders: TypeAlias = Callable[[str, Collection[str]], tuple[Holder, ...]]
"""Who has one of the GPU's device nodes open."""

log = structlog.get_logger(__name__)

_LOOK_S: Final = 0.1


class PassthroughBackend:
    """Implements `ports.Backend`; the inner one does all that is not about virtual machines.

    A GPU may go if it is `offered`; whatever went comes back in any case. `patience_s` is how long one that is in use is
    waited for: the driver would wait inside the kernel, for ever.
    """

    def __init__(
        self, inner: Backend, vfio: Vfio, handovers: Handovers, holders: Holders, *, offered: bool
    ) -> None:
        self.vendor: Vendor = inner.vendor
        self.patience_s = 3.0
        self._inner = inner
        self._vfio = vfio
        self._handovers = handovers
        self._holders = holders
        self._offered = offered
        self._told: dict[str, str] = {}

    def addresses(self) -> tuple[str, ...]:
        """The driver's GPUs, and those that are away."""
        away = {one for one in self._handovers.addresses() if self._vfio.is_there(one)}
        return tuple(sorted(away.union(self._inner.addresses())))

    def read(self, pci_address: str) -> Gpu:
        """As the inner backend; a GPU that is away is as it was when it went."""
        handover = self._away(pci_address)
        if handover is not None:
            return replace(handover.gpu, passthrough=Passthrough.BOUND)
        gpu = self._inner.read(pci_address)
        return replace(gpu, passthrough=self._possible(pci_address) if self._offered else None)

    def partition(self, change: PartitionChange) -> str:
        """As the inner backend, or hand a GPU over, or take it back."""
        match change:
            case BindPassthrough(gpu=gpu):
                return self._hand_over(gpu)
            case UnbindPassthrough(gpu=gpu):
                return self._take_back(gpu)
        return self._inner.partition(change)

    def identify(self, target: Target) -> tuple[str, ...]:
        """As the inner backend; the UUID of a GPU that is away is what it was."""
        handover = self._away(target.gpu)
        if target.passthrough:
            self._with_vfio(target.gpu, handover)
        return self._inner.identify(target) if handover is None else (handover.gpu.uuid,)

    def edits(self, target: Target) -> ContainerEdits:
        """As the inner backend. A virtual machine's container gets vfio-pci's device nodes, and a variable with the PCI address."""
        handover = self._away(target.gpu)
        if target.passthrough:
            functions = self._with_vfio(target.gpu, handover)
            return _edits(target.gpu, self._vfio.nodes(functions))
        if handover is not None:
            raise VendorError(
                f"GPU {target.gpu} is in a virtual machine and cannot be looked at; wait until its claim is released",
                retryable=True,
            )
        return self._inner.edits(target)

    def shared(self) -> SharedEdits | None:
        """As the inner backend."""
        return self._inner.shared()

    def health(self, pci_address: str) -> tuple[Ailment, ...] | None:
        """As the inner backend; of a GPU that is away nobody here can tell."""
        return None if self._away(pci_address) else self._inner.health(pci_address)

    def activity(self, pci_address: str) -> tuple[Activity, ...]:
        """As the inner backend; what a GPU does that is away is the virtual machine's."""
        return () if self._away(pci_address) else self._inner.activity(pci_address)

    def close(self) -> None:
        """As the inner backend."""
        self._inner.close()

    def _possible(self, address: str) -> Passthrough | None:
        """Whether it could go; why not is said once."""
        try:
            self._vfio.functions(address)
        except VendorError as error:
            if self._told.get(address) != str(error):
                self._told[address] = str(error)
                log.warning("a GPU is not offered to virtual machines", gpu=address, why=str(error))
            return None
        return Passthrough.POSSIBLE

    def _away(self, address: str) -> Handover | None:
        """What is known of a GPU that its own driver does not have now, because it was handed over."""
        if address not in self._handovers.addresses():
            return None
        return None if address in self._inner.addresses() else self._handovers.find(address)

    def _with_vfio(self, address: str, handover: Handover | None) -> tuple[str, ...]:
        functions = tuple(handover.drivers) if handover else (address,)
        for function in functions:
            driver = self._vfio.driver_of(function)
            if driver != DRIVER:
                raise VendorError(
                    f"PCI function {function} is with {driver or 'no driver'} and not with {DRIVER}: "
                    "somebody took it from the virtual machine's claim; delete the pod"
                )
        return functions

    def _hand_over(self, address: str) -> str:
        functions = self._vfio.functions(address)
        handover = self._away(address)
        if handover is None:
            handover = self._prepared(address, functions)
            self._handovers.keep(handover)
        self._vfio.take(functions)
        return handover.drivers[address] or ""

    def _prepared(self, address: str, functions: tuple[str, ...]) -> Handover:
        """The GPU as it is, with nobody using it. Of a function that is away already, because a process died, the driver is not lost."""
        gpu = self._inner.read(address)
        if gpu.instances:
            names = ", ".join(f"{one.profile} at {one.placement.start}" for one in gpu.instances)
            raise VendorError(
                f"GPU {address} cannot be passed through: instances exist ({names}); destroy them first",
                retryable=True,
            )
        edits = self._inner.edits(Target(gpu=address))
        nodes = {node.path for node in edits.device_nodes}
        self._require_unused(address, nodes.union(self._vfio.display_nodes(address)))
        former = self._handovers.find(address)
        known = former.drivers if former else {}
        now = {function: self._vfio.driver_of(function) for function in functions}
        return Handover(
            gpu=gpu,
            drivers={
                function: known.get(function, driver) if driver in (None, DRIVER) else driver
                for function, driver in now.items()
            },
        )

    def _take_back(self, address: str) -> str:
        handover = self._handovers.find(address)
        if handover is None:
            return self._vfio.driver_of(address) or ""
        functions = tuple(handover.drivers)
        if self._vfio.is_there(address):
            if self._vfio.driver_of(address) == DRIVER:
                self._require_unused(address, self._vfio.nodes(functions))
            self._vfio.give_back(handover.drivers)
            self._inner.close()  # the vendor's library looks for GPUs when it is opened
            if address not in self._inner.addresses():
                raise VendorError(
                    f"GPU {address} is no longer with {DRIVER}, and {handover.drivers[address]} does not have it; "
                    "see whether that driver is loaded",
                    retryable=True,
                )
        self._handovers.forget(address)
        return handover.drivers[address] or ""

    def _require_unused(self, address: str, nodes: Collection[str]) -> None:
        """Wait a little: what uses it may be going away. The nodes of one device end with its number, others serve all GPUs.

        The vendor's library may have the GPU open in this very process, from one call to the next. It is given back only then:
        calls about other GPUs must begin again afterwards.
        """
        own = [node for node in nodes if node[-1].isdigit()]
        until = time.monotonic() + self.patience_s
        while found := self._holders(address, own):
            if time.monotonic() >= until:
                raise VendorError(
                    f"GPU {address} is in use by {', '.join(map(str, found))}; end what uses it (monitoring and persistence daemons too)",
                    retryable=True,
                )
            if any(one.is_ours for one in found):
                self._inner.close()
            time.sleep(_LOOK_S)


def _edits(address: str, nodes: Collection[str]) -> ContainerEdits:
    """The device nodes, and a variable with the PCI address, by which virtual machines name what they get."""
    if not nodes:
        raise VendorError(
            f"GPU {address} is with {DRIVER}, which offers neither a group nor a device file; "
            "use a kernel with CONFIG_VFIO_GROUP or CONFIG_VFIO_DEVICE_CDEV"
        )
    return ContainerEdits(
        env=((device_variable(address, "-vfio"), address),),
        device_nodes=tuple(DeviceNode(path=node) for node in nodes),
    )
