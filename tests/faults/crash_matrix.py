"""R1: every kill point in every kind of claim's prepare and unprepare, and in every start: `python -m tests.faults.crash_matrix`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from tests.faults.crash_scene import FORMS, Scene, staged
from tests.faults.crashing_calls import OPERATIONS, WHENS, CrashingCall
from tests.faults.crashing_starts import STARTS, CrashingStart
from tests.faults.forks import forking
from tests.faults.kill_points import places

_START, _PREPARE, _UNPREPARE = "start", "prepare", "unprepare"

PASSED_BY: Final[Mapping[str, frozenset[str]]] = {
    "Backend.SetMode": frozenset({_PREPARE}),
    "Backend.CreateStage": frozenset({_PREPARE}),
    "Backend.DestroyStage": frozenset({_UNPREPARE, _START}),
    "Backend.BindPassthrough": frozenset({_PREPARE}),
    "Backend.UnbindPassthrough": frozenset({_UNPREPARE, _START}),
    "ClaimStore.load": frozenset({_START}),
    "ClaimStore.begin": frozenset({_PREPARE}),
    "ClaimStore.step": frozenset({_PREPARE}),
    "ClaimStore.finish": frozenset({_PREPARE}),
    "ClaimStore.releasing": frozenset({_UNPREPARE, _START}),
    "ClaimStore.forget": frozenset({_UNPREPARE, _START}),
    "ClaimStore.rebuild": frozenset({_START}),
    "ClaimStore.sync": frozenset({_PREPARE, _START}),
    "CdiStore.write": frozenset({_PREPARE}),
    "CdiStore.remove": frozenset({_UNPREPARE, _START}),
    "KubeApi.create": frozenset({_START}),
    "KubeApi.replace": frozenset({_START}),
    "KubeApi.delete": frozenset({_START}),
    "KubeApi.patch": frozenset(),  # counts an Event that is said again; nobody depends on it
    "Reply.prepare": frozenset({_PREPARE}),
    "Reply.unprepare": frozenset({_UNPREPARE}),
    "Files.mkdir": frozenset({_START}),
    "Files.open": frozenset({_PREPARE, _UNPREPARE, _START}),
    "Files.link": frozenset({_PREPARE, _START}),
    "Files.rename": frozenset({_PREPARE, _START}),
    "Files.remove": frozenset({_UNPREPARE, _START}),
    "Files.sync": frozenset({_PREPARE, _START}),
    "Sdk.set_mig_mode": frozenset({_PREPARE}),
    "Sdk.create_gpu_instance": frozenset({_PREPARE}),
    "Sdk.create_compute_instance": frozenset({_PREPARE}),
    "Sdk.destroy_gpu_instance": frozenset({_UNPREPARE}),
    "Sdk.destroy_compute_instance": frozenset({_UNPREPARE}),
}
"""Which operations pass a place; what one kind of claim passes is a part of that."""

ONLY_PASSTHROUGH: Final = frozenset({"Backend.BindPassthrough", "Backend.UnbindPassthrough"})
ONLY_PARTITIONS: Final = frozenset(
    {
        *("Backend.CreateStage", "Backend.DestroyStage"),
        *(
            f"Sdk.{verb}_{what}_instance"
            for verb in ("create", "destroy")
            for what in ("gpu", "compute")
        ),
    }
)
"""What a claim for a virtual machine passes and no other, and the other way round."""


def passed_by(operation: str) -> frozenset[str]:
    """All places that the operation passes with one kind of claim or another."""
    return frozenset(
        place for place in places() if operation in PASSED_BY[place.rpartition(".")[0]]
    )


async def run_all() -> int:
    """Run the matrix and print what came of it; the exit status."""
    kills, wrongs, reached = 0, 0, set[str]()
    async with forking() as forks:
        for name, case in cases().items():
            async with staged(forks) as scene:
                await case(scene).run()
            outcome = scene.outcome
            kills, wrongs = kills + len(outcome.died), wrongs + len(outcome.wrongs)
            reached |= {point.place for point in outcome.died}
            lines = [f"{name:34} {len(outcome.died):4} kills", *outcome.wrongs]
            print("\n    ".join(lines), flush=True)  # noqa: T201
    print("never reached:", *sorted(set(places()) - reached))  # noqa: T201
    print(f"{kills} kills, {wrongs} violations")  # noqa: T201
    return int(wrongs > 0)


def cases() -> dict[str, Callable[[Scene], CrashingCall | CrashingStart]]:
    """All of them, by `<operation>, <before or after>: <what>`; a start has both."""
    calls = {
        f"{operation}, {when}: {form.name}": partial(
            CrashingCall, form=form, operation=operation, when=when
        )
        for form in FORMS
        for operation in OPERATIONS
        for when in WHENS
    }
    return {**calls, **{f"start: {start.name}": start for start in STARTS}}


if __name__ == "__main__":
    sys.exit(asyncio.run(run_all()))
