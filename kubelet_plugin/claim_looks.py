"""Which devices nobody uses: asked of all claims in the cluster, and of this node's own records."""

from __future__ import annotations

from collections.abc import Iterator

import structlog

from dra_driver.model.errors import KubeError
from dra_driver.model.kinds import RESOURCE_CLAIM
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import Clock, JsonObject, KubeApi
from dra_driver.rules.usage import DeviceKey
from kubelet_plugin.state import NodeState

log = structlog.get_logger(__name__)

LOOK_S = 60.0


class ClaimLooks:
    """Looks at most once a minute, as it lists the claims of all namespaces.

    A scheduler may be about to allocate what it has not yet seen to be tainted; so one look is not enough where that matters.
    """

    def __init__(self, api: KubeApi, state: NodeState, clock: Clock) -> None:
        self._api = api
        self._state = state
        self._clock = clock
        self._next_at = clock.monotonic()
        self._unused_since: dict[DeviceKey, float] = {}

    @property
    def pause_s(self) -> float:
        """Seconds until the next look may be."""
        return max(0.0, self._next_at - self._clock.monotonic())

    async def unused(
        self, devices: frozenset[DeviceKey], *, for_s: float
    ) -> frozenset[DeviceKey] | None:
        """Those of the devices that nobody uses by a look just now and by all looks for so long; None if it cannot be known now."""
        self._unused_since = {
            key: since for key, since in self._unused_since.items() if key in devices
        }
        now = self._clock.monotonic()
        if not devices or now < self._next_at:
            return None
        self._next_at = now + LOOK_S
        try:
            used = await self._used()
        except KubeError as error:
            log.warning("cannot list claims, so no device is withdrawn yet", error=str(error))
            return None
        self._unused_since = {key: self._unused_since.get(key, now) for key in devices - used}
        for pool, device in sorted(devices & used):
            log.info(
                "a device that is not wanted any more is still in use", pool=pool, device=device
            )
        return frozenset(key for key, since in self._unused_since.items() if now - since >= for_s)

    async def _used(self) -> set[DeviceKey]:
        claims = (await self._api.list(RESOURCE_CLAIM)).items
        promised = {key for claim in claims for key in _allocated(claim)}
        records = self._state.records.values()
        return promised | {(grant.pool, grant.device) for one in records for grant in one.grants}


def _allocated(claim: JsonObject) -> Iterator[DeviceKey]:
    """Read leniently: no odd field of somebody's claim may hide what it holds."""
    allocation = (claim.get("status") or {}).get("allocation") or {}
    for result in (allocation.get("devices") or {}).get("results") or ():
        if result.get("driver") == DRIVER_NAME:
            yield result.get("pool", ""), result.get("device", "")
