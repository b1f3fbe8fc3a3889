"""Breaks simulated hardware, from the test or from another process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def set_faults(folder: Path, faults: Mapping[str, Mapping[str, Any]]) -> None:
    """Make these the faults of the hardware whose state lies in the folder; at once, so that nobody sees half of it."""
    new = folder / "faults.new"
    new.write_text(json.dumps(faults))
    new.replace(folder / "faults.json")
