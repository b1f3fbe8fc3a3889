"""What the API server can keep, and so what may be published; found out without storing anything."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from dra_driver.kube.codec import slice_from_json, slice_to_json
from dra_driver.model.errors import Invalid
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.ports import KubeApi
from dra_driver.rules.pool_diff import is_same
from dra_driver.rules.publish import PublishMode, probe_slices

log = structlog.get_logger(__name__)

COUNTERS_SINCE = (1, 35)
"""The first minor version in which counter sets have slices of their own; 1.34 has an incompatible layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """The mode to publish in; `why` says what keeps it from being FULL."""

    mode: PublishMode
    why: str = ""


async def decide(api: KubeApi, node: str) -> Capability:
    """FULL where every field that partitions need comes back from a dry run.

    Raises KubeError where nobody answers, or where rights are missing, which may come later: ask again then.
    """
    version = await api.server_version()
    is_kept = version >= COUNTERS_SINCE and await _keeps_counters(api, node)
    log.info("whether counters are kept", kept=is_kept, api_server=".".join(map(str, version)))
    if is_kept:
        return Capability(mode=PublishMode.FULL)
    why = "the API server does not keep their counters (DRAPartitionableDevices)"
    return Capability(mode=PublishMode.PLAIN, why=why)


async def _keeps_counters(api: KubeApi, node: str) -> bool:
    for probe in probe_slices(node):
        try:
            answer = await api.create(RESOURCE_SLICE, slice_to_json(probe), dry_run=True)
        except Invalid as error:
            log.warning("the API server refuses slices with counters", error=str(error))
            return False
        if not is_same(slice_from_json(answer), probe):
            return False
    return True
