"""The chart as Helm renders it."""

from __future__ import annotations

from typing import Any

import yaml
from helm_python import Chart

from tests.chart.generate import CHART

RELEASE, NAMESPACE = "gpus", "dra-driver"
PLUGIN = f"{RELEASE}-kubelet-plugin"
"""How the chart calls everything of the plugin."""


def render(values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The objects of a release, in the order in which Helm installs what others need."""
    with Chart.load(CHART) as chart:
        files = chart.render(values or {}, name=RELEASE, namespace=NAMESPACE)
    texts = [text for path, text in sorted(files.items()) if path.endswith(".yaml")]
    objects = [one for text in texts for one in yaml.safe_load_all(text) if one]
    return sorted(objects, key=lambda one: one["kind"] != "ServiceAccount")


def find(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The only object of the kind."""
    [found] = [one for one in objects if one["kind"] == kind]
    return found
