"""Events that are said before anybody can write them: recovery happens before there is a client of the API server."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import structlog

from dra_driver.ports import JsonObject, Recorder

_LIMIT = 100


class DeferredRecorder:
    """`ports.Recorder`: keeps up to 100 Events, hands them on in their order once connected, and all later ones at once.

    The first are kept and not the last: what went wrong first explains the rest. The others are in the log.
    """

    def __init__(self) -> None:
        self._recorder: Recorder | None = None
        self._kept: list[Callable[[Recorder], None]] = []
        self._log: Any = structlog.get_logger()

    def event(
        self,
        regarding: JsonObject,
        *,
        level: Literal["Normal", "Warning"],
        reason: str,
        message: str,
    ) -> None:
        """See Recorder."""
        say = partial(_say, regarding, level, reason, message)
        if self._recorder is not None:
            say(self._recorder)
        elif len(self._kept) < _LIMIT:
            self._kept.append(say)
        else:
            self._log.warning(
                "event_dropped", reason=reason, message=message, why="the API is not connected yet"
            )

    def connect(self, recorder: Recorder) -> None:
        """From here on that recorder writes them."""
        self._recorder = recorder
        for say in self._kept:
            say(recorder)
        self._kept.clear()


def _say(
    regarding: JsonObject,
    level: Literal["Normal", "Warning"],
    reason: str,
    message: str,
    recorder: Recorder,
) -> None:
    recorder.event(regarding, level=level, reason=reason, message=message)
