"""Calls into the vendors' backends, those of one GPU one after the other, each with a deadline. All raise VendorError."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from dra_driver.model.activity import Activity
from dra_driver.model.device import Gpu, PartitionChange, Target, Vendor
from dra_driver.model.edits import ContainerEdits, SharedEdits
from dra_driver.model.errors import DraError, VendorError
from dra_driver.model.health import Ailment
from dra_driver.ports import Backend
from kubelet_plugin.locks import NodeLocks, gpu_lock
from kubelet_plugin.workers import Workers

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Which hardware a target is (UUIDs), and what a container needs to use it; `shared` is the same for its whole pool."""

    hardware: tuple[str, ...]
    edits: ContainerEdits
    shared: SharedEdits | None


class GpuCalls:
    """`backends` by the name of the pool that each fills."""

    def __init__(self, backends: Mapping[str, Backend], workers: Workers, locks: NodeLocks) -> None:
        self._backends = backends
        self._workers = workers
        self._locks = locks

    @property
    def pools(self) -> Collection[str]:
        """The pools whose driver is loaded."""
        return self._backends.keys()

    def vendor(self, pool: str) -> Vendor:
        """Whose GPUs are in the pool."""
        return self._backend(pool).vendor

    async def addresses(self, pool: str) -> tuple[str, ...]:
        """The GPUs that the pool's driver has now."""
        backend = self._backend(pool)
        return await self._call(backend.vendor.value, backend.addresses)

    async def read(self, pool: str, address: str) -> Gpu:
        """The GPU as it is now."""
        backend = self._backend(pool)
        return await self._call(address, lambda: backend.read(address))

    async def change(self, pool: str, change: PartitionChange) -> str:
        """Make one hardware change; its identity. The caller holds the GPU's lock.

        A change that comes back late, after its time-out, must find the GPU as it was: no other process has its turn before.
        """
        backend = self._backend(pool)
        log.info("hardware change", change=type(change).__name__, gpu=change.gpu)
        keep = partial(self._locks.keep_until, gpu_lock(change.gpu))
        return await self._call(change.gpu, lambda: backend.partition(change), keep)

    async def describe(self, pool: str, target: Target) -> Description:
        """The target as it is now. A virtual machine brings a driver of its own."""
        backend = self._backend(pool)
        return await self._call(
            target.gpu,
            lambda: Description(
                hardware=backend.identify(target),
                edits=backend.edits(target),
                shared=None if target.passthrough else backend.shared(),
            ),
        )

    async def ping(self, pool: str, address: str) -> tuple[Ailment, ...] | None:
        """The GPU answers, and what it suffers from; None where it does not tell, which says nothing of its health."""
        backend = self._backend(pool)
        return await self._call(address, lambda: _examined(backend, address))

    async def ping_each(
        self, pool: str, addresses: Collection[str]
    ) -> AsyncIterator[tuple[str, tuple[Ailment, ...] | VendorError | None]]:
        """What `ping` says of each GPU, or its error, as they answer: in turn, and none waits for one that hangs."""
        backend = self._backend(pool)
        async for answer in self._each(addresses, partial(_examined, backend)):
            yield answer

    async def activity_each(
        self, pool: str, addresses: Collection[str]
    ) -> AsyncIterator[tuple[str, tuple[Activity, ...] | VendorError]]:
        """What each GPU and its partitions do, or its error, as they answer. The caller holds the GPUs' locks, as nobody measures what is being changed."""
        async for answer in self._each(addresses, self._backend(pool).activity):
            yield answer

    async def _each(
        self, addresses: Collection[str], ask: Callable[[str], T]
    ) -> AsyncIterator[tuple[str, T | VendorError]]:
        async for address, outcome in self._workers.each(
            {address: partial(ask, address) for address in addresses}
        ):
            if isinstance(outcome, Exception):
                yield address, _as_vendor_error(address, outcome)
            else:
                yield address, outcome

    def is_busy(self, address: str) -> bool:
        """Whether a call for this GPU is under way, timed out or not."""
        return self._workers.is_busy(address)

    async def finished(self, address: str) -> None:
        """Every call for this GPU that was under way, timed out or not, has come to its end."""
        await self._call(address, lambda: None)

    async def _call(
        self,
        key: str,
        function: Callable[[], T],
        watch: Callable[[asyncio.Future[T]], None] | None = None,
    ) -> T:
        """As `Workers.call`. What a backend did not foresee is a VendorError too: one sick GPU must not end the process."""
        try:
            return await self._workers.call(key, function, watch)
        except DraError:
            raise
        except Exception as error:
            raise _as_vendor_error(key, error) from error

    def _backend(self, pool: str) -> Backend:
        if pool not in self._backends:
            raise VendorError(
                f"pool {pool}: its GPUs' driver is not loaded any more; load it again, or restart the node",
                retryable=True,
            )
        return self._backends[pool]


def _as_vendor_error(key: str, error: Exception) -> VendorError:
    if isinstance(error, VendorError):
        return error
    log.error("a GPU's driver failed in a way that is not foreseen", driver_of=key, exc_info=error)
    return VendorError(
        f"the driver of {key} failed with {type(error).__name__}: {error}; the plugin's log has the traceback, report it",
        retryable=True,
    )


def _examined(backend: Backend, address: str) -> tuple[Ailment, ...] | None:
    try:
        found = backend.health(address)
        if found == ():
            return found
    except VendorError as error:
        log.warning("a GPU does not tell its health", gpu=address, error=str(error))
        found = None
    backend.identify(Target(gpu=address))  # one that is well has answered with that
    return found
