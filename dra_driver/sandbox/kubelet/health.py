"""What the drivers say of their devices' health (KEP-4680), and how long the kubelet believes it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import NoReturn

import grpc
import grpc.aio
import structlog

from dra_driver.sandbox.kubelet.deadlines import Deadlines
from dra_driver.sandbox.kubelet.endpoint import Endpoint
from dra_driver.wire.health_v1 import api_pb2

V1, V1ALPHA1 = "v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth"
TIMEOUT_S = 30.0
"""For devices without a time-out of their own."""
MESSAGE_LIMIT_BYTES = 1024

_NAMES = {api_pb2.HEALTHY: "Healthy", api_pb2.UNHEALTHY: "Unhealthy"}
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One device, as its driver said last; it is not believed any more when `until` (the loop's time) has passed."""

    health: str
    message: str
    until: float


UNKNOWN = Report(health="Unknown", message="", until=0.0)


class NodeHealth:
    """The devices of all drivers. `version` is the kubelet's, set before any driver is let in: it decides what is asked and shown."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.version = (0, 0, 0)
        self._deadlines = deadlines
        self._reports: dict[str, dict[tuple[str, str], Report]] = {}

    @property
    def shown(self) -> bool:
        """Whether pods say how their devices are (gate ResourceHealthStatus)."""
        return self.version >= (1, 36)

    @property
    def messages_shown(self) -> bool:
        """Whether they also say why (gate ResourceHealthStatusMessage)."""
        return self.version >= (1, 37)

    def of(self, driver: str, pool: str, device: str) -> Report:
        """The device now: unknown where nothing was said, or not lately."""
        report = self._reports.get(driver, {}).get((pool, device), UNKNOWN)
        return report if report.until > asyncio.get_running_loop().time() else UNKNOWN

    async def follow(self, endpoint: Endpoint, offered: Collection[str]) -> NoReturn:
        """Listen to the driver until cancelled, and again whenever the stream ended; then nothing is known of its devices."""
        service = self._service(offered)
        while service is not None:
            try:
                async for message in endpoint.watch_health(service):
                    self._note(endpoint.driver, message)
            except grpc.aio.AioRpcError as error:
                _log.info("health stream failed", driver=endpoint.driver, error=error.details())
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    service = None  # until it registers again
            finally:
                self._reports.pop(endpoint.driver, None)
            await asyncio.sleep(self._deadlines.health_retry_s)
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    def _service(self, offered: Collection[str]) -> str | None:
        """The newest that both know; kubelets before 1.37 ask for v1alpha1 without looking at the offer."""
        if not self.shown:
            return None
        if self.version < (1, 37):
            return V1ALPHA1
        return next((service for service in (V1, V1ALPHA1) if service in offered), None)

    def _note(self, driver: str, message: api_pb2.NodeWatchResourcesResponse) -> None:
        """What a message leaves out is believed until its time is up."""
        now = asyncio.get_running_loop().time()
        reports = self._reports.setdefault(driver, {})
        for device in message.devices:
            timeout_s = device.health_check_timeout_seconds
            reports[device.device.pool_name, device.device.device_name] = Report(
                health=_NAMES.get(device.health, UNKNOWN.health),
                message=_cut(device.message),
                until=now + (timeout_s if timeout_s > 0 else TIMEOUT_S),
            )


def _cut(message: str) -> str:
    if len(message.encode()) <= MESSAGE_LIMIT_BYTES:
        return message
    return message.encode()[: MESSAGE_LIMIT_BYTES - 3].decode(errors="replace") + "..."
