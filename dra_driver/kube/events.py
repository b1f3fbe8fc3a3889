"""Kubernetes Events (core/v1), best effort: written in the background, repeated ones counted instead of repeated."""

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

_QUEUE_LIMIT = 1000
_SAME_WITHIN_S = 600.0
_MESSAGE_LIMIT = 1024
_REFERENCE_KEYS = ("apiVersion", "kind", "namespace", "name", "uid")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSource:
    """Who speaks: a component, and the node or pod it runs on."""

    component: str
    host: str


@dataclass(frozen=True, slots=True)
class _Note:
    """One thing that was said; equal notes count as the same Event."""

    regarding: tuple[tuple[str, str], ...]
    level: Level
    reason: str
    message: str

    @property
    def namespace(self) -> str:
        """Where the Event lives: beside its object, or in `default` for a cluster-scoped one."""
        return dict(self.regarding).get("namespace", "default")


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
        self._queue: asyncio.Queue[_Note] = asyncio.Queue(_QUEUE_LIMIT)
        self._written: dict[_Note, _Written] = {}
        self._log: Any = structlog.get_logger()

    def event(self, regarding: JsonObject, *, level: Level, reason: str, message: str) -> None:
        """Queue an Event on the object that `regarding` names (apiVersion, kind, name, namespace, uid)."""
        reference = tuple(
            (key, str(regarding[key])) for key in _REFERENCE_KEYS if regarding.get(key)
        )
        note = _Note(reference, level, reason, message[:_MESSAGE_LIMIT])
        try:
            self._queue.put_nowait(note)
        except asyncio.QueueFull:
            self._log.warning("event_dropped", reason=reason, message=message, why="queue is full")

    async def run(self) -> None:
        """Write what is queued until cancelled."""
        while True:
            note = await self._queue.get()
            try:
                await self._write(note)
            except DraError as error:
                self._log.warning(
                    "event_dropped", reason=note.reason, message=note.message, why=str(error)
                )

    async def _write(self, note: _Note) -> None:
        self._forget_old()
        known, written = self._written.pop(note, None), None
        if known is not None:
            with contextlib.suppress(
                NotFound
            ):  # Events live for an hour, or until somebody deletes them
                written = await self._count_up(note, known)
        self._written[note] = written or await self._create(note)

    async def _count_up(self, note: _Note, known: _Written) -> _Written:
        count = known.count + 1
        patch = {"count": count, "lastTimestamp": _rfc3339(self._now())}
        await self._api.patch(EVENT, known.name, patch, namespace=note.namespace)
        return replace(known, count=count, at=self._clock.monotonic())

    async def _create(self, note: _Note) -> _Written:
        regarding, now = dict(note.regarding), _rfc3339(self._now())
        body = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"generateName": f"{regarding.get('name')}.", "namespace": note.namespace},
            "involvedObject": regarding,
            "type": note.level,
            "reason": note.reason,
            "message": note.message,
            "source": {"component": self._source.component, "host": self._source.host},
            "reportingComponent": self._source.component,
            "reportingInstance": self._source.host,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        stored = await self._api.create(EVENT, body, namespace=note.namespace)
        return _Written(stored["metadata"]["name"], 1, self._clock.monotonic())

    def _forget_old(self) -> None:
        """Forget what was last said too long ago, and beyond a bound the longest unsaid; the dict is in that order."""
        oldest = self._clock.monotonic() - _SAME_WITHIN_S
        for note, written in list(self._written.items()):
            if written.at > oldest and len(self._written) < _QUEUE_LIMIT:
                break
            del self._written[note]


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
