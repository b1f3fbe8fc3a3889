"""The DRA drivers that are registered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dra_driver.model.errors import ClaimError
from dra_driver.sandbox.kubelet.endpoint import Endpoint


class Plugins:
    """All endpoints of all drivers; while a driver is upgraded it has two."""

    def __init__(self) -> None:
        self._endpoints: dict[str, list[Endpoint]] = {}

    @property
    def drivers(self) -> frozenset[str]:
        """Every driver that registered since the kubelet started, whether or not it is still there."""
        return frozenset(self._endpoints)

    def endpoint(self, driver: str) -> Endpoint:
        """Who gets the driver's calls: the newest endpoint that is connected, else the newest. Raises ClaimError."""
        newest_first = self._endpoints.get(driver, [])[::-1]
        if not newest_first:
            raise ClaimError(f"DRA driver {driver} is not registered: is its plugin running?")
        return next((one for one in newest_first if one.connected()), newest_first[0])

    def connected(self, driver: str) -> bool:
        """Whether any endpoint of the driver can be called. Asks all of them, so that all stay connected."""
        states = [endpoint.connected() for endpoint in self._endpoints.get(driver, [])]
        return any(states)

    def has(self, driver: str, path: Path) -> bool:
        """Whether this very endpoint is registered."""
        return any(endpoint.path == path for endpoint in self._endpoints.get(driver, []))

    @asynccontextmanager
    async def added(self, endpoint: Endpoint) -> AsyncIterator[None]:
        """The endpoint's driver has it while the block runs."""
        endpoints = self._endpoints.setdefault(endpoint.driver, [])
        endpoints.append(endpoint)
        endpoint.connected()  # connects now, not with the first call
        try:
            yield
        finally:
            endpoints.remove(endpoint)
            await endpoint.close()
