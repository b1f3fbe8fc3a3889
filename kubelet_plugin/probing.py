"""What the API server can keep, found out without storing anything."""

from __future__ import annotations

import structlog

from dra_driver.kube.codec import slice_from_json, slice_to_json
from dra_driver.model.errors import Invalid
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.ports import KubeApi
from dra_driver.rules.publish import PublishMode, is_same, probe_slices

log = structlog.get_logger(__name__)

COUNTERS_SINCE = (1, 35)
"""The first minor version in which counter sets have slices of their own; 1.34 has an incompatible layout."""


async def supported_mode(api: KubeApi, node: str) -> PublishMode:
    """FULL where every field that partitions need comes back from a dry run. Raises KubeError where nobody answers."""
    version = await api.server_version()
    is_kept = version >= COUNTERS_SINCE and await _keeps_counters(api, node)
    mode = PublishMode.FULL if is_kept else PublishMode.PLAIN
    log.info("publish mode", mode=mode.value, api_server=".".join(map(str, version)))
    return mode


async def _keeps_counters(api: KubeApi, node: str) -> bool:
    for probe in probe_slices(node):
        try:
            answer = await api.create(RESOURCE_SLICE, slice_to_json(probe), dry_run=True)
        except Invalid as error:  # all others say nothing about fields: rights, say, may come later
            log.warning("the API server refuses slices with counters", error=str(error))
            return False
        if not is_same(slice_from_json(answer), probe):
            return False
    return True
