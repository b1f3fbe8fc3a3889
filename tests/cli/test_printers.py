from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from dra_driver.cli.printers import Column, Layout, Output, View, age, render

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VIEW: View[tuple[str, str]] = View(
    columns=(
        Column("NAME", lambda row: row[0]),
        Column("USER", lambda row: row[1]),
        Column("EXTRA", lambda _: "x", only_wide=True),
    ),
    to_object=lambda row: {"kind": "Thing", "name": row[0]},
    to_name=lambda row: f"thing/{row[0]}",
)
ROWS = [("first", "somebody"), ("b", "")]


def test_a_table_is_aligned_and_names_what_is_missing() -> None:
    """Columns are three spaces apart, empty cells are <none>, lines end without spaces."""
    assert render(VIEW, ROWS, Layout()).splitlines() == [
        "NAME    USER",
        "first   somebody",
        "b       <none>",
    ]


def test_wide_adds_columns_and_headers_can_go() -> None:
    """Columns for wide output show there alone; widths fit what is shown."""
    layout = Layout(output="wide", headers=False)
    assert render(VIEW, ROWS, layout).splitlines() == [
        "first   somebody   x",
        "b       <none>     x",
    ]


def test_names_are_one_a_line() -> None:
    """Names can be piped into another command."""
    assert render(VIEW, ROWS, Layout(output="name")) == "thing/first\nthing/b"


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_documents_are_lists(output: Output, load: object) -> None:
    """JSON and YAML hold the objects in order inside a List, also where there are none."""
    assert callable(load)
    document = load(render(VIEW, ROWS, Layout(output=output)))
    assert (document["apiVersion"], document["kind"]) == ("v1", "List")
    assert [item["name"] for item in document["items"]] == ["first", "b"]
    assert load(render(VIEW, [], Layout(output=output)))["items"] == []


def test_a_single_object_is_printed_bare() -> None:
    """One name asked for is one object, as in kubectl; two found are a list again."""
    layout = Layout(output="json", single=True)
    assert json.loads(render(VIEW, ROWS[:1], layout))["kind"] == "Thing"
    assert json.loads(render(VIEW, ROWS, layout))["kind"] == "List"


def test_no_rows_are_no_table() -> None:
    """Without rows there is no header either."""
    assert render(VIEW, [], Layout()) == ""


@pytest.mark.parametrize(
    ("passed", "text"),
    [
        (timedelta(seconds=-5), "0s"),
        (timedelta(0), "0s"),
        (timedelta(seconds=119), "119s"),
        (timedelta(seconds=120), "2m"),
        (timedelta(minutes=5, seconds=30), "5m30s"),
        (timedelta(minutes=10), "10m"),
        (timedelta(minutes=179, seconds=59), "179m"),
        (timedelta(hours=3), "3h"),
        (timedelta(hours=7, minutes=30), "7h30m"),
        (timedelta(hours=47, minutes=59), "47h"),
        (timedelta(days=3, hours=4), "3d4h"),
        (timedelta(days=8), "8d"),
        (timedelta(days=729), "729d"),
        (timedelta(days=740), "2y10d"),
    ],
)
def test_ages_are_worded_as_by_kubectl(passed: timedelta, text: str) -> None:
    """Two units at most, the smaller one left out where it is zero or does not matter."""
    created = (NOW - passed).isoformat().replace("+00:00", "Z")
    assert age(created, NOW) == text


def test_an_object_without_a_time_has_no_age() -> None:
    """What was never created on a server says so."""
    assert age(None, NOW) == "<unknown>"
