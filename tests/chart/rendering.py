"""The chart as Helm renders it."""

from __future__ import annotations

from typing import Any

import yaml
from helm_python import Chart

from tests.chart.generate import CHART

RELEASE, NAMESPACE = "gpus", "dra-driver"
PLUGIN = f"{RELEASE}-kubelet-plugin"
"""How the chart calls everything of the plugin."""


HOOK = "helm.sh/hook"


def render(values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The objects of a release, in the order in which Helm installs what others need; not its hooks."""
    return [one for one in _render(values) if HOOK not in _annotations(one)]


def render_hooks(values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """What Helm makes before it removes a release, in that order."""
    hooks = [one for one in _render(values) if _annotations(one).get(HOOK) == "pre-delete"]
    return sorted(hooks, key=lambda one: int(_annotations(one)["helm.sh/hook-weight"]))


def _annotations(one: dict[str, Any]) -> dict[str, str]:
    return one["metadata"].get("annotations") or {}


def _render(values: dict[str, Any] | None) -> list[dict[str, Any]]:
    with Chart.load(CHART) as chart:
        files = chart.render(values or {}, name=RELEASE, namespace=NAMESPACE)
    texts = [text for path, text in sorted(files.items()) if path.endswith(".yaml")]
    objects = [one for text in texts for one in yaml.safe_load_all(text) if one]
    return sorted(objects, key=lambda one: one["kind"] != "ServiceAccount")


def find(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The only object of the kind."""
    [found] = [one for one in objects if one["kind"] == kind]
    return found
