"""The list of kill points follows the product by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.faults.crash_matrix import PASSED_BY, passed_by
from tests.faults.kill_points import CHANGING, ENVIRONMENT, LOOKING, KillPoint, methods, places


@pytest.mark.parametrize("protocol", CHANGING, ids=lambda one: str(one.__name__))
def test_every_method_of_a_port_is_known_to_change_something_or_not(protocol: type) -> None:
    """A method that was added to a Protocol is named here until `kill_points` says which it is."""
    known = CHANGING[protocol] | LOOKING[protocol]
    assert methods(protocol) - known == set(), "classify these in kill_points"
    assert known - methods(protocol) == set(), "these are gone from the Protocol"
    assert CHANGING[protocol] & LOOKING[protocol] == set()


def test_every_place_is_passed_by_some_operation() -> None:
    """A new kind of hardware change, or a new changing method, is named here until the matrix says who passes it."""
    assert {place.rpartition(".")[0] for place in places()} == set(PASSED_BY)
    passed = passed_by("prepare") | passed_by("unprepare") | passed_by("start")
    assert set(places()) - passed == {"KubeApi.patch.before", "KubeApi.patch.after"}


def test_a_kill_point_is_read_as_it_is_written() -> None:
    """Anything else is refused, so that a misspelt point does not make a run in which nobody dies."""
    point = KillPoint("ClaimStore", "begin", "after", 2)
    assert KillPoint.parse(str(point)) == point
    for wrong in ("ClaimStore.begin.after", "ClaimStore.begin.during:1", "begin.after:1", ""):
        with pytest.raises(ValueError, match="is no kill point"):
            KillPoint.parse(wrong)


def test_a_misspelt_point_ends_the_plugin_at_once() -> None:
    """The launcher is also a program of its own, and says what is wrong with its variable."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.faults.killed_plugin", "version"],
        env={**os.environ, ENVIRONMENT: "ClaimStore.begin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode not in {0, -signal.SIGKILL}
    assert "'ClaimStore.begin' is no kill point" in ended.stderr
