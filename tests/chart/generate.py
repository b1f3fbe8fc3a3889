"""`python -m tests.chart.generate` writes what the chart has of other parts: the values' schema and the DeviceClasses."""

from __future__ import annotations

import json
from pathlib import Path

from tests.chart.values import values_schema

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "dra-driver"


def generated() -> dict[Path, str]:
    """Every generated file of the chart, and what it must say."""
    schema = json.dumps(values_schema(), indent=2) + "\n"
    classes = (ROOT / "deviceclasses").glob("*.yaml")
    return {CHART / "values.schema.json": schema} | {
        CHART / "deviceclasses" / path.name: path.read_text() for path in classes
    }


def main() -> None:
    """Write them, and remove copies of DeviceClasses that are no more."""
    files = generated()
    for path in (CHART / "deviceclasses").glob("*.yaml"):
        if path not in files:
            path.unlink()
    for path, text in files.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
