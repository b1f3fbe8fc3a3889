"""Looks at the hardware, one GPU at a time, so that one that does not answer hides nothing but itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import replace

import structlog

from dra_driver.model.device import Gpu
from dra_driver.model.errors import DraError, VendorError
from dra_driver.model.health import Ailment
from dra_driver.model.inventory import Fault, Inventory
from kubelet_plugin.casebook import Casebook
from kubelet_plugin.company import Company
from kubelet_plugin.gpu_calls import GpuCalls
from kubelet_plugin.locks import NodeLocks, gpu_lock
from kubelet_plugin.state import NodeState

log = structlog.get_logger(__name__)

PINGS_PER_LISTING = 5
"""A GPU that is new is found with the listing; one that is gone does not answer its ping."""


class Survey:
    """Keeps the state's inventories true. `timeout_s` is how long a look waits for its turn on a GPU."""

    def __init__(
        self,
        state: NodeState,
        calls: GpuCalls,
        turns: tuple[NodeLocks, Company],
        casebook: Casebook,
        *,
        timeout_s: float,
    ) -> None:
        self._state = state
        self._calls = calls
        self._locks, self._company = turns
        self._casebook = casebook
        self._timeout_s = timeout_s
        self._until_listed: Counter[str] = Counter()
        self._kept: set[str] = set()
        self._under_way: set[str] = set()
        self._left_out: set[str] = set()
        self._missed: set[str] = set()

    @property
    def pending(self) -> Collection[str]:
        """GPUs that are waited for by a look or a ping, or of which the last one learned nothing."""
        return self._under_way | self._missed

    async def look(self) -> None:
        """Look at every GPU once, each when nobody is changing it; new ones appear, those that are gone disappear.

        Returns when all have answered or have failed to. While a vendor's driver does not even list its GPUs, nothing is known of any.
        GPUs that an earlier look or ping is waiting for are looked at when that is over, so that any number may be under way.
        """
        await asyncio.gather(*(self._look_at_pool(pool) for pool in self._calls.pools))

    async def ping(self) -> None:
        """Ask every GPU a small question and how it is, and look at those that answer otherwise than they did: gone, hung or back; now and then new.

        Not those that an earlier look or ping is waiting for.
        """
        await asyncio.gather(*(self._ping_pool(pool) for pool in self._calls.pools))

    async def look_at(self, pool: str, address: str) -> Gpu | None:
        """The GPU as it is now, None where it is gone; the caller holds its lock. VendorError if it does not answer."""
        try:
            with self._company.seeing(address):
                gpu = await self._calls.read(pool, address)
        except VendorError as error:
            if address in await self._calls.addresses(pool):
                self._note_fault(pool, Fault(pci_address=address, message=str(error)))
                raise
            self._lose(pool, address)
            return None
        if pool not in self._state.inventories:  # a call that came before the first look
            self._expect(pool, await self._calls.addresses(pool))
        self._state.observe_gpu(pool, gpu)
        return gpu

    async def _look_at_pool(self, pool: str) -> None:
        listed = await self._listed(pool)
        self._left_out.update(self._under_way.intersection(listed))
        addresses = self._taken_on(listed)
        await asyncio.gather(*(self._look_in_round(pool, address) for address in addresses))

    async def _ping_pool(self, pool: str) -> None:
        addresses = self._taken_on(await self._to_be_pinged(pool))
        async with asyncio.TaskGroup() as looks:
            async for address, answer in self._calls.ping_each(pool, addresses):
                if self._heed(pool, address, answer):
                    looks.create_task(self._look_in_round(pool, address))
                else:
                    self._done_with(address)

    def _taken_on(self, addresses: tuple[str, ...]) -> list[str]:
        taken = [address for address in addresses if address not in self._under_way]
        self._under_way.update(taken)
        return taken

    async def _look_in_round(self, pool: str, address: str) -> None:
        self._left_out.discard(address)
        self._done_with(address, missed=not await self._look_alone(pool, address))

    def _done_with(self, address: str, *, missed: bool = False) -> None:
        self._under_way.discard(address)
        (self._missed.add if missed else self._missed.discard)(address)

    async def _to_be_pinged(self, pool: str) -> tuple[str, ...]:
        """The pool's GPUs. As long as all are there and answer, their driver is asked only now and then whether it has others."""
        inventory = self._state.inventories.get(pool)
        known = inventory.addresses if inventory else ()
        if known and self._until_listed[pool]:
            self._until_listed[pool] -= 1
            return known
        self._until_listed[pool] = PINGS_PER_LISTING - 1
        listed = await self._listed(pool)
        if set(listed) != set(known):
            self._until_listed[pool] = 0
        return listed

    def _heed(
        self, pool: str, address: str, answer: tuple[Ailment, ...] | VendorError | None
    ) -> bool:
        """Note a ping's answer. Whether to look: the last one found the GPU otherwise, or left it out; one that is `unseen` gets its look either way."""
        inventory = self._state.inventories[pool]
        if address not in inventory.addresses:
            return False  # it has gone meanwhile
        if isinstance(answer, VendorError):
            self._until_listed[pool] = 0
            fault = inventory.fault(address)
            return fault is None or fault.unseen
        self._casebook.note(address, answer)
        return inventory.gpu(address) is None or address in self._left_out

    async def _listed(self, pool: str) -> tuple[str, ...]:
        """The pool's GPUs, all of which the state knows; none, and all of them out of sight, where the driver does not say."""
        try:
            addresses = await self._calls.addresses(pool)
        except VendorError as error:
            log.warning("hardware cannot be looked at", pool=pool, error=str(error))
            self._lose_sight(pool, error)
            return ()
        self._expect(pool, addresses)
        return addresses

    def _lose_sight(self, pool: str, error: VendorError) -> None:
        """What was known may not be true any more: without its driver no GPU is usable, and none is known to be sick."""
        known = self._state.inventories.get(pool)
        if known is None:
            return
        faults = tuple(
            Fault(
                pci_address=address,
                message=f"GPU {address} cannot be looked at: {error}",
                unseen=True,
            )
            for address in known.addresses
        )
        self._state.observe(replace(known, gpus=(), faults=faults))

    def _expect(self, pool: str, addresses: tuple[str, ...]) -> None:
        """Before the first look a GPU is there and not yet usable; one that the driver lists no more is gone."""
        known = self._state.inventories.get(pool)
        if known is None:
            known = Inventory(vendor=self._calls.vendor(pool), gpus=())
            self._state.observe(known)
        for address in set(known.addresses).difference(addresses):
            log.warning("a GPU is gone", gpu=address)
            self._lose(pool, address)
        for address in set(addresses).difference(known.addresses):
            message = f"GPU {address} has not answered yet; its driver is being asked"
            self._state.observe_gpu(pool, Fault(pci_address=address, message=message, unseen=True))

    async def _look_alone(self, pool: str, address: str) -> bool:
        """Look when nobody is changing the GPU; whether the state says now how it is.

        One that another process does not give back is out of sight, and delays no other.
        """
        lock = gpu_lock(address)
        try:
            async with asyncio.timeout(self._patience_s(address)) as limit:
                async with self._locks.held(lock):
                    limit.reschedule(None)
                    self._kept.discard(address)
                    await (
                        self._company.learn_all()
                    )  # else what another process made would be nobody's
                    if await self.look_at(pool, address) is not None:
                        self._casebook.note(address, await self._calls.ping(pool, address))
        except TimeoutError:
            if not self._locks.is_elsewhere(lock):
                return False
            self._kept.add(address)
            message = f"GPU {address}: another plugin process has it and does not give it back; delete that plugin's pod"
            self._note_fault(pool, Fault(pci_address=address, message=message, unseen=True))
        except (DraError, OSError) as error:
            log.warning("a GPU cannot be looked at", gpu=address, why=str(error))
            return self._state.inventories[pool].fault(address) is not None
        return True

    def _patience_s(self, address: str) -> float:
        """How long to wait for the GPU's turn: not again for one that was waited for in vain and that another process still has."""
        is_kept = address in self._kept and self._locks.is_elsewhere(gpu_lock(address))
        return 0.0 if is_kept else self._timeout_s

    def _lose(self, pool: str, address: str) -> None:
        self._casebook.forget(address)
        self._state.lose_gpu(pool, address)

    def _note_fault(self, pool: str, fault: Fault) -> None:
        if pool in self._state.inventories:
            self._state.observe_gpu(pool, fault)
