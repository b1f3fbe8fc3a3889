"""A claim's `status.allocation`, put together from the devices picked for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from dra_driver.model.claim import Allocation, AllocationResult, Claim, OpaqueConfig
from dra_driver.model.slices import NodeRequirement
from dra_driver.rules.ledger import Pick
from dra_driver.rules.nodes import NodeInfo, merged, pinned_to
from dra_driver.rules.requests import Option, concerns


def assemble(
    claim: Claim, picks: Sequence[Pick], node: NodeInfo, new_share_id: Callable[[], str]
) -> Allocation:
    """The allocation of these picks, which are all of this claim, on this node."""
    return Allocation(
        results=tuple(_result(pick, new_share_id) for pick in picks),
        config=_config(claim, tuple(dict.fromkeys(pick.option for pick in picks))),
        node_selector=_node_selector(picks, node),
    )


def _result(pick: Pick, new_share_id: Callable[[], str]) -> AllocationResult:
    device = pick.candidate.device
    return AllocationResult(
        request=pick.option.name,
        driver=pick.candidate.id.driver,
        pool=pick.candidate.id.pool,
        device=pick.candidate.id.device,
        admin_access=pick.option.request.admin_access,
        share_id=new_share_id() if device.allow_multiple_allocations else None,
        consumed_capacity=pick.consumed if device.allow_multiple_allocations else {},
        tolerations=pick.option.request.tolerations,
        binding_conditions=device.binding_conditions,
        binding_failure_conditions=device.binding_failure_conditions,
    )


def _config(claim: Claim, chosen: Sequence[Option]) -> tuple[OpaqueConfig, ...]:
    """Class entries, then claim entries: the later one wins. One that names all requests is for all."""
    entries = (*_class_entries(chosen), *_claim_entries(claim, chosen))
    return tuple(
        replace(entry, requests=())
        if all(concerns(entry.requests, o.main, o.name) for o in chosen)
        else entry
        for entry in entries
    )


def _class_entries(chosen: Sequence[Option]) -> Iterator[OpaqueConfig]:
    for device_class in {
        option.device_class.name: option.device_class for option in chosen
    }.values():
        users = tuple(o.name for o in chosen if o.device_class.name == device_class.name)
        for entry in device_class.config:
            yield replace(entry, requests=users, source="FromClass")


def _claim_entries(claim: Claim, chosen: Sequence[Option]) -> Iterator[OpaqueConfig]:
    for entry in claim.config:
        if any(concerns(entry.requests, option.main, option.name) for option in chosen):
            yield replace(entry, source="FromClaim")


def _node_selector(picks: Sequence[Pick], node: NodeInfo) -> tuple[NodeRequirement, ...] | None:
    """This node alone if one device is local to it or binds to it; None where all devices are usable everywhere."""
    if any(p.candidate.place.node_name or p.candidate.device.binds_to_node for p in picks):
        return pinned_to(node)
    return merged(pick.candidate.place for pick in picks)
