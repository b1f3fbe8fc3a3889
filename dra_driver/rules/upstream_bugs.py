"""Bugs of Kubernetes that our users would meet if we did not go around them: one table, for `dra doctor` and for people.

Those without a release that mends them were seen in 1.37.1; look again before a release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

Version: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamBug:
    """A bug of kubernetes/kubernetes; `fixed_in` None: in no release yet. `answer` is what this driver does about it."""

    number: int
    what: str
    fixed_in: Version | None
    answer: str


UPSTREAM_BUGS: Final = (
    UpstreamBug(
        number=139034,
        what="committed shares of a device are forgotten when counters are summed up",
        fixed_in=(1, 36, 2),
        answer="shared forms are not published beside other forms of the same GPU",
    ),
    UpstreamBug(
        number=138885,
        what="allocationMode All on devices with counters crashes the scheduler",
        fixed_in=(1, 36, 2),
        answer="nothing can be done by a driver: do not use allocationMode All for partitions",
    ),
    UpstreamBug(
        number=140436,
        what="candidates that a taint or a constraint rejects keep their counters during a scheduling attempt",
        fixed_in=(1, 36, 3),
        answer="nothing can be done by a driver: a pod may wait although it would fit",
    ),
    UpstreamBug(
        number=141829,
        what="allocationMode All fails on all nodes while one node's pool is incomplete",
        fixed_in=None,
        answer="a pool is incomplete only while it is being written",
    ),
    UpstreamBug(
        number=140806,
        what="withdrawing an allocated device frees its counters while it is in use",
        fixed_in=None,
        answer="what is not wanted any more is tainted, and goes when no claim names it in two looks a minute apart",
    ),
    UpstreamBug(
        number=140729,
        what="requests with adminAccess are charged counters",
        fixed_in=None,
        answer="monitors are devices of their own, without counters",
    ),
)


def bugs_of(version: Version) -> tuple[UpstreamBug, ...]:
    """The bugs that this version of Kubernetes has."""
    return tuple(bug for bug in UPSTREAM_BUGS if bug.fixed_in is None or version < bug.fixed_in)
