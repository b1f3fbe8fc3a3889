"""Damaged files, set aside for people: `<claim uid>.<number>`, and `.settled` behind it once the claim is well again.

An unsettled file refuses its claim, over every restart of this boot: a claim that was refused once is not unknown, and so free
to be prepared again. Settled ones refuse nobody, and only the newest are kept.
"""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path

from dra_driver.journal.files import entries
from dra_driver.model.names import CLAIM_UID

SETTLED_KEPT = 20

_SETTLED = ".settled"
_UNSETTLED = re.compile(rf"(?P<uid>{CLAIM_UID.pattern})\.(?P<number>[0-9]+)")


class Quarantine:
    """One folder of such files; made when it is needed. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, path: Path) -> Path:
        """Move the claim's file here, as it is; returns its new place."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        taken = {place.name.removesuffix(_SETTLED) for place in entries(self._folder)}
        names = (f"{path.stem}.{number}" for number in count(1))
        place = self._folder / next(name for name in names if name not in taken)
        path.rename(place)
        return place

    def unsettled(self) -> dict[str, Path]:
        """The newest unsettled file of each claim, by its UID."""
        found = [match for place in entries(self._folder) if (match := _match(place))]
        found.sort(key=lambda match: int(match["number"]))
        return {match["uid"]: self._folder / match[0] for match in found}

    def settle(self, uid: str) -> None:
        """The claim is not refused any more."""
        places = [place for place in entries(self._folder) if _match(place, uid)]
        for place in places:
            place.rename(place.with_name(f"{place.name}{_SETTLED}"))
        if places:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        settled = [place for place in entries(self._folder) if place.suffix == _SETTLED]
        settled.sort(key=lambda place: place.stat().st_ctime_ns, reverse=True)
        for place in settled[SETTLED_KEPT:]:
            place.unlink(missing_ok=True)


def _match(place: Path, uid: str | None = None) -> re.Match[str] | None:
    match = _UNSETTLED.fullmatch(place.name)
    return match if match and uid in {None, match["uid"]} else None
