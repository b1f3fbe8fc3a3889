"""What `/metrics`, `/healthz` and `/readyz` say about this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from dra_driver.config.settings import OFF
from dra_driver.observe.probes import Condition, Pages, serving_pages
from kubelet_plugin.metrics import PluginMetrics
from kubelet_plugin.registration import Registration

log = structlog.get_logger(__name__)


class ProcessPages:
    """`published` says whether the slices are what they should be."""

    def __init__(
        self,
        metrics: PluginMetrics,
        registration: Registration,
        published: Callable[[], bool],
    ) -> None:
        self._metrics = metrics
        self._registration = registration
        self._published = published

    @asynccontextmanager
    async def served(self, address: str) -> AsyncIterator[None]:
        """They are served at the address while the block runs, unless it is `off`."""
        if address == OFF:
            yield
            return
        pages = Pages(metrics=self._metrics.page, health=_alive, readiness=self._ready)
        async with serving_pages(pages, address) as (host, port):
            log.info("metrics and probes are served", host=host, port=port)
            yield

    def _ready(self) -> Condition:
        registered = self._registration.registered.is_set()
        refused = self._registration.error or "the kubelet has not called yet"
        missing = "not all slices are stored as they should be"
        return Condition(
            {
                "registration": "" if registered else refused,
                "slices": "" if self._published() else missing,
            }
        )


def _alive() -> Condition:
    """A process whose event loop answers does its work: whatever cannot go on ends it."""
    return Condition({"event loop": ""})
