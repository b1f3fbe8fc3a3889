"""Where a pod's claims fit: the allocator, asked node after node; in a process of its own, because CEL leaks and takes time."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache

from dra_driver.model.claim import Allocation, Claim, DeviceClass
from dra_driver.model.slices import NodePlace, ResourceSlice
from dra_driver.rules.allocate import (
    Allocated,
    AllocationError,
    Cluster,
    Matcher,
    NodeInfo,
    Refusal,
    allocate,
)
from dra_driver.rules.nodes import reaches
from dra_driver.rules.selectors import CelMatcher
from dra_driver.sandbox.orphans import end_with_parent

QUESTIONS_PER_PROCESS = 500
"""The CEL binding leaks about 2 KiB per evaluation with our functions; a process is replaced long before that matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A pod's claims and all that decides about them. `nodes` in the order in which they are tried."""

    nodes: tuple[NodeInfo, ...]
    claims: tuple[Claim, ...]
    slices: tuple[ResourceSlice, ...]
    classes: tuple[DeviceClass, ...]
    all_claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The node, and one allocation per claim of the question, those that were there already included."""

    node: str
    allocations: tuple[Allocation, ...]


@dataclass(frozen=True, slots=True)
class Unplaced:
    """Why no node will do, as a pod's condition says it."""

    message: str


def place(question: Question, matcher: Matcher) -> Placed | Unplaced:
    """The first node on which all the pod's claims can be had together."""
    cluster = Cluster(
        classes={c.name: c for c in question.classes},
        slices=question.slices,
        allocated=Allocated.of(question.all_claims),
    )
    open_claims = [claim for claim in question.claims if claim.allocation is None]
    reasons = []
    for node in question.nodes:
        elsewhere = [
            c.ref.name
            for c in question.claims
            if c.allocation and not _is_usable(c.allocation, node)
        ]
        if elsewhere:
            reasons.append(f"{node.name}: claim {elsewhere[0]} is allocated elsewhere")
            continue
        try:
            answer = allocate(open_claims, node, cluster, matcher=matcher, new_share_id=_share_id)
        except AllocationError as error:
            return Unplaced(str(error))
        if isinstance(answer, Refusal):
            reasons.append(f"{node.name}: {answer}")
            continue
        fresh = iter(answer)
        return Placed(
            node=node.name, allocations=tuple(c.allocation or next(fresh) for c in question.claims)
        )
    return Unplaced(f"0/{len(question.nodes)} nodes are available: {'; '.join(reasons)}")


@asynccontextmanager
async def placing() -> AsyncIterator[Callable[[Question], Awaitable[Placed | Unplaced]]]:
    """A `place` that runs elsewhere and can be awaited."""
    with ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=end_with_parent,
        initargs=(os.getpid(),),
        max_tasks_per_child=QUESTIONS_PER_PROCESS,
    ) as pool:
        loop = asyncio.get_running_loop()
        with (
            _interrupts_blocked()
        ):  # the pool's thread and processes inherit that: Ctrl-C is ours to handle
            # The first process starts now, not with the first pod.
            loop.run_in_executor(pool, end_with_parent, os.getpid())
        yield lambda question: loop.run_in_executor(pool, _answer, question)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """SIGINT waits until the block has ended."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _answer(question: Question) -> Placed | Unplaced:
    return place(question, _matcher())


@cache
def _matcher() -> Matcher:
    """One for the process's life: it remembers what it has compiled and answered."""
    return CelMatcher()


def _share_id() -> str:
    return str(uuid.uuid4())


def _is_usable(allocation: Allocation, node: NodeInfo) -> bool:
    return allocation.node_selector is None or reaches(
        NodePlace(node_selector=allocation.node_selector), node
    )
