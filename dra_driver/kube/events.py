"""Kubernetes Events (core/v1), best effort: written in the background, repeated ones counted instead of repeated.

The same reason on the same object within ten minutes is the same Event: its count goes up, and it gets the newest message. So a
claim that fails again and again, with words that differ, costs one object.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import structlog

from dra_driver.model.errors import DraError, NotFound
from dra_driver.model.kinds import EVENT
from dra_driver.ports import Clock, JsonObject, KubeApi, SystemClock

Level: TypeAlias = Literal["Normal", "Warning"]

_LIMIT = 1000
_SAME_WITHIN_S = 600.0
_MESSAGE_LIMIT = 1024
_REFERENCE_KEYS = ("apiVersion", "kind", "namespace", "name", "uid")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSource:
    """Who speaks: a component, and the node or pod it runs on."""

    component: str
    host: str


@dataclass(frozen=True, slots=True)
class _Subject:
    """What counts as the same Event: on what, how grave, and why."""

    regarding: tuple[tuple[str, str], ...]
    level: Level
    reason: str

    @property
    def namespace(self) -> str:
        """Where the Event lives: beside its object, or in `default` for a cluster-scoped one."""
        return dict(self.regarding).get("namespace", "default")


@dataclass(frozen=True, slots=True)
class _Said:
    """What is still to be written: the newest message, and how often the same was said since the last write."""

    message: str
    times: int


@dataclass(frozen=True, slots=True)
class _Written:
    """An Event that is in the API: its name, how often it was said, and when last."""

    name: str
    count: int
    at: float


class EventRecorder:
    """`ports.Recorder`. Nothing that goes wrong with an Event reaches its caller: it is logged and dropped.

    `run` must be running for Events to be written; while it cannot keep up, more than 1,000 waiting ones are dropped.
    """

    def __init__(
        self,
        api: KubeApi,
        source: EventSource,
        *,
        clock: Clock | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._source = source
        self._clock = clock or SystemClock()
        self._now = now
        self._waiting: dict[_Subject, _Said] = {}
        self._due = asyncio.Event()
        self._written: dict[_Subject, _Written] = {}
        self._log: Any = structlog.get_logger()

    def event(self, regarding: JsonObject, *, level: Level, reason: str, message: str) -> None:
        """Queue an Event on the object that `regarding` names (apiVersion, kind, name, namespace, uid)."""
        reference = tuple(
            (key, str(regarding[key])) for key in _REFERENCE_KEYS if regarding.get(key)
        )
        subject = _Subject(reference, level, reason)
        said = self._waiting.get(subject)
        if said is None and len(self._waiting) >= _LIMIT:
            self._log.warning(
                "event_dropped", reason=reason, message=message, why="too many are waiting"
            )
            return
        self._waiting[subject] = _Said(message[:_MESSAGE_LIMIT], said.times + 1 if said else 1)
        self._due.set()

    async def run(self) -> None:
        """Write what is queued until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            while self._waiting:
                subject = next(iter(self._waiting))
                said = self._waiting.pop(subject)
                try:
                    await self._write(subject, said)
                except DraError as error:
                    self._log.warning(
                        "event_dropped",
                        reason=subject.reason,
                        message=said.message,
                        why=str(error),
                    )

    async def _write(self, subject: _Subject, said: _Said) -> None:
        self._forget_old()
        known, written = self._written.pop(subject, None), None
        if known is not None:
            with contextlib.suppress(
                NotFound
            ):  # Events live for an hour, or until somebody deletes them
                written = await self._count_up(subject, said, known)
        self._written[subject] = written or await self._create(subject, said)

    async def _count_up(self, subject: _Subject, said: _Said, known: _Written) -> _Written:
        count = known.count + said.times
        last = _rfc3339(self._now())
        patch = {"count": count, "lastTimestamp": last, "message": said.message}
        await self._api.patch(EVENT, known.name, patch, namespace=subject.namespace)
        return replace(known, count=count, at=self._clock.monotonic())

    async def _create(self, subject: _Subject, said: _Said) -> _Written:
        regarding, now = dict(subject.regarding), _rfc3339(self._now())
        body = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {
                "generateName": f"{regarding.get('name')}.",
                "namespace": subject.namespace,
            },
            "involvedObject": regarding,
            "type": subject.level,
            "reason": subject.reason,
            "message": said.message,
            "source": {"component": self._source.component, "host": self._source.host},
            "reportingComponent": self._source.component,
            "reportingInstance": self._source.host,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": said.times,
        }
        stored = await self._api.create(EVENT, body, namespace=subject.namespace)
        return _Written(stored["metadata"]["name"], said.times, self._clock.monotonic())

    def _forget_old(self) -> None:
        """Forget what was last said too long ago, and beyond a bound the longest unsaid; the dict is in that order."""
        oldest = self._clock.monotonic() - _SAME_WITHIN_S
        for subject, written in list(self._written.items()):
            if written.at > oldest and len(self._written) < _LIMIT:
                break
            del self._written[subject]


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
