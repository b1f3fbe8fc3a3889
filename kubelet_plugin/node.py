"""The node half, put together: everything between the kubelet's calls and the hardware; no sockets, no publishing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from dra_driver.model.slices import TaintEffect
from dra_driver.ports import Backend, CdiStore, ClaimStore, Clock, KubeApi
from kubelet_plugin.activity import ActivityWatch, Users
from kubelet_plugin.casebook import Casebook
from kubelet_plugin.claim_source import ClaimSource
from kubelet_plugin.claims import Claims
from kubelet_plugin.company import Company
from kubelet_plugin.executor import Executor
from kubelet_plugin.gpu_calls import GpuCalls
from kubelet_plugin.instances import Instance
from kubelet_plugin.locks import NodeLocks
from kubelet_plugin.orphans import Orphans
from kubelet_plugin.reconciler import Reconciler
from kubelet_plugin.recovery import Recovery
from kubelet_plugin.state import NodeState
from kubelet_plugin.survey import Survey
from kubelet_plugin.telemetry import Telemetry
from kubelet_plugin.turns import Turns
from kubelet_plugin.witnesses import Witnesses
from kubelet_plugin.workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the node half stands on.

    `backends` by pool name; `lock_file` is shared with other processes of this driver; `api` waits until there is a client;
    `claims_in_use` asks the kubelet for namespace and name of the claims that pods use; `users` are asked for metrics alone. `broken_gpu_effect`:
    of their taints.
    """

    instance: Instance
    lock_file: Path
    backends: Mapping[str, Backend]
    sdk_timeout_s: float
    store: ClaimStore
    cdi: CdiStore
    api: Callable[[], Awaitable[KubeApi]]
    claims_in_use: Callable[[], Awaitable[Collection[tuple[str, str]]]]
    users: Users
    telemetry: Telemetry
    clock: Clock
    broken_gpu_effect: TaintEffect = "NoSchedule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The parts that somebody has to start, or to ask."""

    state: NodeState
    survey: Survey
    recovery: Recovery
    reconciler: Reconciler
    orphans: Orphans
    claims: Claims
    activity: ActivityWatch


def build_node(state: NodeState, ground: Ground) -> Node:
    """All parts; nothing runs, and nothing was looked at yet."""
    stores, telemetry = (ground.store, ground.cdi), ground.telemetry
    locks = NodeLocks(ground.lock_file)
    company = Company(ground.instance, state, ground.store)
    calls = GpuCalls(ground.backends, Workers(timeout_s=ground.sdk_timeout_s), locks)
    casebook = Casebook(state, ground.clock, on_broken=ground.broken_gpu_effect)
    survey = Survey(state, calls, (locks, company), casebook, timeout_s=ground.sdk_timeout_s)
    turns = Turns(locks, company, survey)
    executor = Executor(state, stores, calls, survey, telemetry)
    recovery = Recovery(state, turns, executor, stores, telemetry)
    reconciler = Reconciler(state, recovery, _witnesses(state, ground))
    source = ClaimSource(ground.api, ground.clock, telemetry)
    claims = Claims(state, turns, executor, (recovery, reconciler), (source, telemetry))
    orphans = Orphans(state, turns, stores, recovery, _witnesses(state, ground))
    return Node(
        state=state,
        survey=survey,
        recovery=recovery,
        reconciler=reconciler,
        orphans=orphans,
        claims=claims,
        activity=ActivityWatch(state, calls, locks, ground.users),
    )


def _witnesses(state: NodeState, ground: Ground) -> Witnesses:
    return Witnesses(state.node, ground.api, ground.claims_in_use, ground.clock)
