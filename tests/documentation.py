"""`python -m tests.documentation` writes the tables of docs/user that are made from declarations; tests compare them."""

from __future__ import annotations

import re
from pathlib import Path

from dra_driver.config.reference import render
from dra_driver.model.reasons import event_table
from kubelet_plugin.metric_families import table
from kubelet_plugin.metrics import Levels, PluginMetrics

PAGES = Path(__file__).parents[1] / "docs/user"
_TABLE = r"^{head}\n(\|.*\|\n)+"


def main() -> None:
    """Rewrite what differs."""
    metrics = PluginMetrics(version="0", levels=Levels)
    (PAGES / "configuration.md").write_text(render())
    _replace_table("events.md", event_table())
    _replace_table("metrics.md", table(one.family for one in metrics.series))


def _replace_table(name: str, rows: str) -> None:
    """The page's table with the same head becomes these rows."""
    page = PAGES / name
    text = page.read_text()
    head = re.escape(rows.partition("\n")[0])
    found = re.search(_TABLE.format(head=head), text, re.MULTILINE)
    assert found, f"{page} has no such table"
    page.write_text(text[: found.start()] + rows + text[found.end() :])


if __name__ == "__main__":
    main()
