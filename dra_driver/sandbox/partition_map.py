"""A picture of which parts of the GPUs are taken: one character per position, one letter per claim."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from string import ascii_uppercase

from dra_driver.model.claim import ClaimRef
from dra_driver.rules.usage import DeviceUse

FREE = "."
_POSITION = re.compile(r"memory-slice-(\d+)")


def draw_map(uses: Sequence[DeviceUse]) -> Iterator[str]:
    """A line per GPU, sorted by node and name, then the legend.

    A GPU that can be cut shows its positions; one that cannot shows a single one. Devices of one GPU have the same `parent`.
    """
    letters = _letters(uses)
    for node in sorted({use.node or "" for use in uses}):
        yield node
        here = [use for use in uses if (use.node or "") == node]
        for gpu in sorted({str(use.device.attributes["parent"]) for use in here}):
            devices = [use for use in here if use.device.attributes["parent"] == gpu]
            product = next(str(use.device.attributes["productName"]) for use in devices)
            yield f"  {gpu}  [{_cells(devices, letters)}]  {product}"
    for claim, letter in letters.items():
        names = [_what(use) for use in uses if claim in use.claims]
        yield f"  {letter} = {claim}: {', '.join(names)}"


def _letters(uses: Iterable[DeviceUse]) -> dict[ClaimRef, str]:
    claims = sorted({claim for use in uses for claim in use.claims})
    return {
        claim: ascii_uppercase[index % len(ascii_uppercase)] for index, claim in enumerate(claims)
    }


def _cells(devices: Iterable[DeviceUse], letters: dict[ClaimRef, str]) -> str:
    cells = dict.fromkeys((position for use in devices for position in _positions(use)), FREE)
    for use in devices:
        for claim in use.claims:
            cells |= dict.fromkeys(_positions(use), letters[claim])
    return "".join(cells[position] for position in sorted(cells))


def _positions(use: DeviceUse) -> list[int]:
    names = [name for part in use.device.consumes for name in part.counters]
    return [int(match[1]) for name in names if (match := _POSITION.fullmatch(name))] or [0]


def _what(use: DeviceUse) -> str:
    return str(use.device.attributes["profile"]) or "whole GPU"
