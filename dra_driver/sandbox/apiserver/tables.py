"""Server-side printing: a Table instead of objects, for clients that only show them to people."""

from __future__ import annotations

from collections.abc import Sequence

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import ServedKind
from dra_driver.sandbox.apiserver.columns import Printed, columns_of
from dra_driver.sandbox.apiserver.objects import metadata


def render_table(served: ServedKind, shown: JsonObject, include: str) -> JsonObject:
    """The Table of a List or of one object; `include` (Metadata, Object or None) says what its rows carry."""
    columns = columns_of(served)
    is_list = "items" in shown
    meta = shown["metadata"] if is_list else {"resourceVersion": _version(shown)}
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": [_definition(column) for column in columns],
        "rows": [_row(columns, obj, include) for obj in (shown["items"] if is_list else [shown])],
    }


def _version(obj: JsonObject) -> str:
    return str(metadata(obj).get("resourceVersion", ""))


def _definition(column: Printed) -> JsonObject:
    return {
        "name": column.name,
        "type": column.type,
        "format": "name" if column.name == "Name" else "",
        "description": f"{column.name} of the object",
        "priority": column.priority,
    }


def _row(columns: Sequence[Printed], obj: JsonObject, include: str) -> JsonObject:
    row: JsonObject = {"cells": [column.read(obj) for column in columns]}
    if include == "Object":
        row["object"] = obj
    elif include != "None":
        partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
        row["object"] = {**partial, "metadata": metadata(obj)}
    return row
