"""What a scheduler may answer to a case, worked out with our allocator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product

from dra_driver.model.claim import Allocation
from dra_driver.model.slices import ResourceSlice
from dra_driver.rules.allocate import (
    Allocated,
    AllocationError,
    Cluster,
    Matcher,
    Refusal,
    allocate,
)
from dra_driver.rules.pools import DeviceId
from tests.cluster.differential.case import Case

SHARE_ID = "share"
"""Stands for every share's ID, as these are random."""

_RANK_END = ":"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A node, and one allocation for each of the pod's claims. Without a node: there is none."""

    node: str | None = None
    allocations: tuple[Allocation, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"  {self.node or 'nowhere'}", *self._lines()])

    def _lines(self) -> Iterator[str]:
        for allocation in self.allocations:
            for result in allocation.results:
                amounts = [f"{name}={amount}" for name, amount in result.consumed_capacity.items()]
                device = f"{result.driver}/{result.pool}/{result.device}"
                yield " ".join([f"    {result.request}:", device, *amounts])
            yield f"    on {allocation.node_selector} with {allocation.config}"

    @property
    def devices(self) -> tuple[str, ...]:
        """Their names, in the order of the results."""
        return tuple(r.device for allocation in self.allocations for r in allocation.results)

    def without_config(self) -> Answer:
        """Devices and nodes alone."""
        return replace(self, allocations=tuple(replace(a, config=()) for a in self.allocations))


NOWHERE = Answer()


def expected(case: Case, matcher: Matcher) -> tuple[Answer, ...]:
    """One answer for each node that would do, or NOWHERE. An attempt that fails on one node fails for all."""
    return tuple(_answers(case, case.cluster, matcher))


def expected_in_any_order(case: Case, matcher: Matcher) -> tuple[Answer, ...]:
    """The same, of a scheduler that tries pools, and the slices of a pool, in no certain order."""
    return tuple(
        answer
        for cluster in _in_all_orders(case.cluster)
        for answer in _answers(case, cluster, matcher)
    )


def normal(allocation: Allocation) -> Allocation:
    """Without what is random about it, and without our ranks."""
    return replace(
        allocation,
        results=tuple(
            replace(
                result,
                share_id=SHARE_ID if result.share_id else None,
                pool=result.pool.rpartition(_RANK_END)[2],
            )
            for result in allocation.results
        ),
    )


def _answers(case: Case, cluster: Cluster, matcher: Matcher) -> Sequence[Answer]:
    answers = []
    claims = case.open_claims
    for node in case.node_infos:
        try:
            found = allocate(claims, node, cluster, matcher=matcher, new_share_id=lambda: SHARE_ID)
        except AllocationError:
            return (NOWHERE,)
        if not isinstance(found, Refusal):
            answers.append(Answer(node=node.name, allocations=tuple(map(normal, found))))
    return answers or (NOWHERE,)


def _in_all_orders(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with pools and slices named so that their order by name is each of all orders. Of one driver only."""
    pools: dict[str, list[ResourceSlice]] = {}
    for published in cluster.slices:
        pools.setdefault(published.pool.name, []).append(published)
    newest = {pool: max(s.pool.generation for s in slices) for pool, slices in pools.items()}
    orders = (
        permutations(s.name for s in slices if s.pool.generation == newest[pool])
        for pool, slices in pools.items()
    )
    for pool_order, *slice_orders in product(permutations(pools), *orders):
        slice_order = [name for order in slice_orders for name in order]
        yield _renamed(cluster, _ranked(pool_order), _ranked(slice_order))


def _ranked(names: Iterable[str]) -> Mapping[str, str]:
    return {name: f"{rank:02}{_RANK_END}{name}" for rank, name in enumerate(names)}


def _renamed(cluster: Cluster, pools: Mapping[str, str], slices: Mapping[str, str]) -> Cluster:
    dedicated = (
        DeviceId(d.driver, pools.get(d.pool, d.pool), d.device) for d in cluster.allocated.dedicated
    )
    return replace(
        cluster,
        slices=[
            replace(
                published,
                name=slices.get(published.name, published.name),
                pool=replace(published.pool, name=pools[published.pool.name]),
            )
            for published in cluster.slices
        ],
        allocated=Allocated(dedicated=frozenset(dedicated)),
    )
