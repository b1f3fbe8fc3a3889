"""Metrics as Prometheus reads them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dra_driver.observe.process import process_series
from dra_driver.observe.series import Counter, Family, Histogram, Level, render

LINE = re.compile(
    r"# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{([a-z_]+=\"([^\"\\\n]|\\[\\n\"])*\",?)*\})? [0-9.e+-]+"
)


def counts(**labels: tuple[str, ...]) -> Counter:
    return Counter(Family(name="c_total", kind="counter", meaning="Counts.", labels=labels))


def test_counters_exist_from_the_start() -> None:
    """Every label set is there at zero, as a rate over the first increase needs it; then it counts."""
    counter = counts(verb=("get", "put"), code=("1",))
    counter.add("get", "1")
    counter.add("get", "1", amount=2)
    assert render([counter]).splitlines() == [
        "# HELP c_total Counts.",
        "# TYPE c_total counter",
        'c_total{verb="get",code="1"} 3',
        'c_total{verb="put",code="1"} 0',
    ]


def test_nobody_makes_up_series() -> None:
    """A label value that was not declared is refused: the number of series is fixed."""
    counter = counts(verb=("get",))
    with pytest.raises(KeyError):
        counter.add("pod-17")
    assert len(list(counter.samples())) == 1


def test_histograms_are_cumulative() -> None:
    """A value counts in each bucket whose bound it does not exceed, and in sum and count."""
    family = Family(name="h_seconds", kind="histogram", meaning="Times.", labels={"op": ("a",)})
    histogram = Histogram(family, (0.5, 1.0))
    for value in (0.1, 0.5, 0.75, 7.0):
        histogram.observe("a", value=value)
    assert list(histogram.samples()) == [
        'h_seconds_bucket{op="a",le="0.5"} 2',
        'h_seconds_bucket{op="a",le="1"} 3',
        'h_seconds_bucket{op="a",le="+Inf"} 4',
        'h_seconds_sum{op="a"} 8.35',
        'h_seconds_count{op="a"} 4',
    ]


def test_levels_are_read_at_the_scrape() -> None:
    """What can be looked up is looked up then; label values are quoted, and need not be known before."""
    now: dict[tuple[str, ...], float] = {}
    family = Family(name="g", kind="gauge", meaning="A\nB \\ C", labels={"pool": ()})
    level = Level(family, lambda: now)
    assert list(level.samples()) == []
    now['a"b\\c\n',] = 0.25
    assert list(level.samples()) == ['g{pool="a\\"b\\\\c\\n"} 0.25']
    assert "# HELP g A\\nB \\\\ C\n" in render([level])
    assert all(LINE.fullmatch(line) for line in render([level]).splitlines())


def test_the_process_measures_itself() -> None:
    """Memory, processor time, start and descriptors are this process's, as the kernel says elsewhere."""
    text = render(process_series())
    assert all(LINE.fullmatch(line) for line in text.splitlines())
    values = {
        name: float(value)
        for name, value in re.findall(r"^(process\S+) (\S+)$", text, re.MULTILINE)
    }
    status = Path("/proc/self/status").read_text()
    resident = 1024 * int(re.findall(r"VmRSS:\s+(\d+)", status)[0])
    assert values["process_resident_memory_bytes"] == pytest.approx(resident, rel=0.2)
    assert values["process_virtual_memory_bytes"] > values["process_resident_memory_bytes"]
    times = os.times()
    assert values["process_cpu_seconds_total"] == pytest.approx(times.user + times.system, abs=2)
    assert values["process_open_fds"] < values["process_max_fds"]


def test_the_start_is_a_time_of_day() -> None:
    """A new process says that it has just started, on the clock that Prometheus uses too."""
    program = (
        "from dra_driver.observe import process, series\n"
        "print(series.render(process.process_series()))"
    )
    before = time.time()
    text = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    [start] = re.findall(r"^process_start_time_seconds (\S+)$", text, re.MULTILINE)
    assert before - 5 < float(start) < time.time() + 5


def test_open_descriptors_are_counted() -> None:
    """One more open file is one more."""

    def count() -> float:
        text = render(process_series())
        return float(re.findall(r"^process_open_fds (\S+)$", text, re.MULTILINE)[0])

    before = count()
    with Path("/dev/null").open():
        assert count() == before + 1
