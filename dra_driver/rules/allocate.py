"""The scheduler's allocator (kube-scheduler's structured allocator, Kubernetes 1.37), as a pure function.

It answers what the scheduler would: "why is it pending", "what if", and it drives the sandbox. Read it in this order:
`pools` (what the node sees), `requests` (what is asked, in the order of the search), `eligibility` (which devices would
do), `ledger` (who has what), `search` (the first solution), `results` (the allocation), `refusal` (why there is none).

Known differences from upstream: what `selectors` says about CEL; list attributes and what is alpha in 1.37 do not exist;
a search is given up by steps, not by time. Where older versions differ, tests/cluster/differential/ has the list, and
compares the rest with real schedulers. Upstream's faults that 1.37 still has are followed: an administrator's request is
charged counters for the attempt (kubernetes#140729), withdrawn devices charge none (kubernetes#140806), and all devices
of a pool that is being updated fail the attempt on all nodes (kubernetes#141829).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dra_driver.model.claim import Allocation, Claim, DeviceClass
from dra_driver.model.slices import ResourceSlice
from dra_driver.rules.eligibility import Eligibility
from dra_driver.rules.ledger import Allocated, Ledger, Pick
from dra_driver.rules.matching import AllocationError, Matcher
from dra_driver.rules.nodes import NodeInfo
from dra_driver.rules.pools import gather_pools
from dra_driver.rules.refusal import Refusal, explain
from dra_driver.rules.requests import Slot, read_requests
from dra_driver.rules.results import assemble
from dra_driver.rules.search import Search, SearchTooLong

__all__ = ["Allocated", "AllocationError", "Cluster", "Matcher", "NodeInfo", "Refusal", "allocate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the scheduler knows: classes by name, all slices of all drivers, and what claims hold already."""

    classes: Mapping[str, DeviceClass]
    slices: Sequence[ResourceSlice]
    allocated: Allocated = field(default_factory=Allocated)


def allocate(
    claims: Sequence[Claim],
    node: NodeInfo,
    cluster: Cluster,
    *,
    matcher: Matcher,
    new_share_id: Callable[[], str],
) -> tuple[Allocation, ...] | Refusal:
    """One allocation for each claim, in order, all usable on the node together; or why that cannot be.

    The claims are those of one pod that are not allocated yet. Raises AllocationError where the scheduler fails the
    attempt on all nodes: an unknown class, a selector that fails, all devices of a pool that is being updated, too many
    devices in a claim. Pools that cannot be trusted, and a search that takes too long, are reasons to refuse this node.
    """
    pools = gather_pools(cluster.slices, node)
    slots = read_requests(claims, cluster.classes)
    eligibility = Eligibility(pools, cluster.allocated, matcher)

    def solve(wanted: Sequence[Slot]) -> tuple[Pick, ...] | None:
        return Search(wanted, eligibility, Ledger(pools, cluster.allocated)).solve()

    try:
        picks = solve(slots)
    except SearchTooLong as error:
        return Refusal(node=node.name, remarks=(str(error),))
    if picks is None:
        return explain(node.name, slots, pools, eligibility, lambda s: solve(s) is not None)
    return tuple(
        assemble(claim, [p for p in picks if p.option.claim == claim.ref], node, new_share_id)
        for claim in claims
    )
