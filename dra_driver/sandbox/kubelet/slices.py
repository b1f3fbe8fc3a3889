"""When the kubelet deletes ResourceSlices: at its start, and when a driver stays away."""

from __future__ import annotations

import asyncio
import math

import structlog

from dra_driver.model import kinds
from dra_driver.model.errors import KubeError, NotFound
from dra_driver.ports import KubeApi
from dra_driver.sandbox.kubelet.deadlines import Deadlines
from dra_driver.sandbox.kubelet.plugins import Plugins

_log = structlog.get_logger()


class SliceWiper:
    """Deletes slices whose spec.nodeName is this node, and no others: what a driver published and nobody serves any more."""

    def __init__(self, api: KubeApi, node: str, plugins: Plugins, deadlines: Deadlines) -> None:
        self._api = api
        self._node = node
        self._plugins = plugins
        self._deadlines = deadlines

    async def wipe_all(self) -> None:
        """The node's slices of all drivers are gone. Raises KubeError."""
        await self._wipe(f"spec.nodeName={self._node}")

    async def run(self) -> None:
        """Wipe a driver's slices, once, when it had no connection for `wipe_after_s`."""
        due: dict[str, float] = {}
        while True:
            now = asyncio.get_running_loop().time()
            for driver in self._plugins.drivers:
                if self._plugins.connected(driver):
                    due.pop(driver, None)
                elif due.setdefault(driver, now + self._deadlines.wipe_after_s) <= now:
                    wiped = await self._wipe_driver(driver)
                    due[driver] = math.inf if wiped else now + self._deadlines.retry_max_s
            await asyncio.sleep(self._deadlines.poll_s)

    async def _wipe_driver(self, driver: str) -> bool:
        try:
            await self._wipe(f"spec.nodeName={self._node},spec.driver={driver}")
        except KubeError as error:
            _log.warning("slices not wiped", node=self._node, driver=driver, error=str(error))
            return False
        _log.info("slices wiped: the driver stays away", node=self._node, driver=driver)
        return True

    async def _wipe(self, field_selector: str) -> None:
        listing = await self._api.list(
            kinds.RESOURCE_SLICE, selectors={"fieldSelector": field_selector}
        )
        for item in listing.items:
            try:
                await self._api.delete(kinds.RESOURCE_SLICE, item["metadata"]["name"])
            except NotFound:
                continue
