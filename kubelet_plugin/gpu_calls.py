"""Calls into the vendors' backends, each in its GPU's own thread with a deadline. All raise VendorError."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

import structlog

from dra_driver.model.device import Gpu, PartitionChange, Target, Vendor
from dra_driver.model.edits import ContainerEdits
from dra_driver.model.errors import VendorError
from dra_driver.ports import Backend
from kubelet_plugin.locks import NodeLocks, gpu_lock
from kubelet_plugin.workers import Workers

log = structlog.get_logger(__name__)


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
        return await self._workers.call(backend.vendor.value, backend.addresses)

    async def read(self, pool: str, address: str) -> Gpu:
        """The GPU as it is now."""
        backend = self._backend(pool)
        return await self._workers.call(address, lambda: backend.read(address))

    async def change(self, pool: str, change: PartitionChange) -> str:
        """Make one hardware change; its identity. The caller holds the GPU's lock.

        A change that comes back late, after its time-out, must find the GPU as it was: no other process has its turn before.
        """
        backend = self._backend(pool)
        log.info("hardware change", change=type(change).__name__, gpu=change.gpu)
        return await self._workers.call(
            change.gpu,
            lambda: backend.partition(change),
            partial(self._locks.keep_until, gpu_lock(change.gpu)),
        )

    async def describe(self, pool: str, target: Target) -> tuple[tuple[str, ...], ContainerEdits]:
        """Which hardware the target is now (UUIDs), and what a container needs to use it."""
        backend = self._backend(pool)
        return await self._workers.call(
            target.gpu, lambda: (backend.identify(target), backend.edits(target))
        )

    async def ping(self, pool: str, address: str) -> None:
        """The GPU answers."""
        backend = self._backend(pool)
        await self._workers.call(address, lambda: backend.identify(Target(gpu=address)))

    async def finished(self, address: str) -> None:
        """Every call for this GPU that was under way, timed out or not, has come to its end."""
        await self._workers.call(address, lambda: None)

    def _backend(self, pool: str) -> Backend:
        if pool not in self._backends:
            raise VendorError(
                f"pool {pool}: its GPUs' driver is not loaded any more; load it again, or restart the node",
                retryable=True,
            )
        return self._backends[pool]
