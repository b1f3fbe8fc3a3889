"""Whether somebody wants this node drained (see `rules.draining`)."""

from __future__ import annotations

from collections.abc import Collection

import structlog

from dra_driver.rules.draining import DRAIN_ANNOTATION
from kubelet_plugin.node_object import NodeObject
from kubelet_plugin.slice_store import StoredSlice

log = structlog.get_logger(__name__)


class DrainNotice:
    """`since` is the annotation's value, empty where the node is not drained."""

    def __init__(self, node: NodeObject) -> None:
        self._node = node
        self.since = ""

    async def look(self, stored: Collection[StoredSlice]) -> None:
        """The annotation on any slice counts, so that its removal counts once it is complete; without slices, the Node's."""
        notes = [item.annotations.get(DRAIN_ANNOTATION, "") for item in stored]
        since = next(filter(None, notes), "") if notes else await self._without_slices()
        if since != self.since:
            log.info("draining" if since else "no longer draining", since=since or None)
        self.since = since

    async def _without_slices(self) -> str:
        """Slices were wiped, or a drained plugin took them along when it stopped: the Node still knows."""
        if self.since:
            return self.since
        metadata = (await self._node.read())["metadata"]
        since: str = metadata.get("annotations", {}).get(DRAIN_ANNOTATION, "")
        return since
