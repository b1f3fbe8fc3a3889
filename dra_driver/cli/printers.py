"""Output as kubectl's users expect it: aligned columns without boxes or colour, JSON, YAML, names."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import yaml

from dra_driver.ports import JsonObject

T = TypeVar("T")
Output: TypeAlias = Literal["table", "wide", "name", "json", "yaml"]

NONE = "<none>"
_GAP = "   "
_SECONDS = MappingProxyType({"s": 1, "m": 60, "h": 3600, "d": 86_400, "y": 365 * 86_400})
# Below so many seconds, these units.
_AGE_SCALES = (
    (2 * 60, "s"),
    (10 * 60, "ms"),
    (3 * 3600, "m"),
    (8 * 3600, "hm"),
    (2 * 86_400, "h"),
    (8 * 86_400, "dh"),
    (2 * 365 * 86_400, "d"),
    (float("inf"), "yd"),
)


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column of a table of T. An empty cell is printed as `<none>`."""

    header: str
    cell: Callable[[T], str]
    only_wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class View(Generic[T]):
    """How things of one sort look: as a row, as an object, as a name, and as a list of objects."""

    columns: tuple[Column[T], ...]
    to_object: Callable[[T], JsonObject]
    to_name: Callable[[T], str]
    list_api_version: str = "v1"
    list_kind: str = "List"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How results are to be printed. `single`: as one object and not as a list of one, where objects are printed."""

    output: Output = "table"
    headers: bool = True
    single: bool = False


def render(view: View[T], rows: Sequence[T], layout: Layout) -> str:
    """The rows in the layout's format and in their order; empty only for no rows in a format for people."""
    if layout.output in {"json", "yaml"}:
        objects = [view.to_object(row) for row in rows]
        if layout.single and len(objects) == 1:
            return render_document(objects[0], layout.output)
        head = {"apiVersion": view.list_api_version, "kind": view.list_kind}
        return render_document({**head, "items": objects}, layout.output)
    if layout.output == "name" or not rows:
        return "\n".join(view.to_name(row) for row in rows)
    return render_table(view.columns, rows, layout)


def render_table(columns: Sequence[Column[T]], rows: Sequence[T], layout: Layout) -> str:
    """Left-aligned columns, three spaces apart, in the order of the rows; no space at the ends of lines."""
    shown = [column for column in columns if layout.output == "wide" or not column.only_wide]
    lines = [[column.header for column in shown]] if layout.headers else []
    lines += [[column.cell(row) or NONE for column in shown] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        _GAP.join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def render_document(value: Any, output: Output) -> str:
    """The value as YAML, or else as JSON, keys in their order."""
    if output == "yaml":
        return yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=False).rstrip("\n")
    return json.dumps(value, indent=4, ensure_ascii=False)


def age(created: str | None, now: datetime) -> str:
    """The time since an RFC 3339 moment in at most two units, as kubectl words it: 90s, 5m30s, 47h, 3d4h, 2y10d."""
    if created is None:
        return "<unknown>"
    seconds = max(0, int((now - datetime.fromisoformat(created)).total_seconds()))
    _, units = next(scale for scale in _AGE_SCALES if seconds < scale[0])
    words: list[str] = []
    for unit in units:
        count, seconds = divmod(seconds, _SECONDS[unit])
        if count or not words:
            words.append(f"{count}{unit}")
    return "".join(words)
