"""The modelled disk takes its time for our plugin, whatever was imported first."""

from __future__ import annotations

from tests.bench.arena import Arena, two_kubelets
from tests.bench.recipes import OURS, Recipe

_SYNC_MS = 150.0


async def test_a_claim_waits_for_the_disk() -> None:
    """Each prepare takes a sync longer; a program that is no Python is left out."""
    program = Recipe(name="program", command="/bin/true", kind_of=lambda _: "")
    async with two_kubelets() as (kubelet, onlooker):
        arena = Arena(
            rounds=1,
            serial_claims=1,
            sync_ms=_SYNC_MS,
            ours=OURS,
            peers=(program,),
            kubelet=kubelet,
            onlooker=onlooker,
        )
        async with arena.contenders(on_disk=True) as (ours,):
            burst = await ours.burst(2, at_once=1)
    assert not burst.errors
    assert min(burst.each_s) > _SYNC_MS / 1e3
