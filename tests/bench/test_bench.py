"""The benchmark measures: one tiny round, of which only what does not depend on the machine's mood is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.bench import recipes
from tests.bench.__main__ import bench
from tests.bench.report import Measured, percentile, table


def test_a_tiny_round_beside_the_reference_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes: no call fails, every claim costs one GET and no more; a peer of the environment takes part."""
    monkeypatch.setenv(f"{recipes.PEER}TWIN", recipes.REFERENCE.command)
    file = tmp_path / "lines.json"
    arguments = ["B8", "B1a", "--rounds=1", "--serial-claims=2", f"--json={file}"]
    outcome = CliRunner().invoke(bench, arguments, catch_exceptions=False)
    assert "B8: API requests" in outcome.output
    lines = {line["what"]: line for line in json.loads(file.read_text())}
    contenders = ("ours", "reference", "twin")
    for what, expected in (("new claim", 1), ("replay", 0), ("unprepare", 0)):
        line = lines[f"API requests, {what}"]
        assert line["values"] == dict.fromkeys(contenders, expected)
        assert line["verdict"] == "pass"
        assert f"| B8  | API requests, {what}" in outcome.output
    assert lines["failed calls"]["values"] == dict.fromkeys(contenders, 0)


def test_a_bar_that_does_not_hold_is_said() -> None:
    """By ratios, taken round by round, and by the worst round; without anybody to compare with there is no verdict."""
    measured = Measured(
        bar="B1", what="p50", unit="ms", rounds={"ours": [1, 2, 9], "peer": [1, 4, 3]}
    )
    assert measured.at_most_times({"peer": 1.0}).holds is True
    assert measured.at_most_times({"peer": 0.9}).holds is False
    assert measured.at_least_times({"peer": 1.1}).holds is False
    assert measured.at_most_times({"absent": 1.0}).holds is None
    assert measured.at_most(2).holds is True
    assert measured.never_over(2).holds is False
    assert "FAIL" in table([measured.never_over(2)])
    assert percentile([*range(1, 101)], 99) == 100
