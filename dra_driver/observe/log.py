"""Logging: structlog, on stderr; lines of libraries, which use the standard library's logging, come out alike.

Ours do not pass through the standard library: a call writes two lines, and that would be a tenth of its time. Every line has `timestamp` (RFC 3339, UTC), `level`, `logger` and `event`. Nothing is set up by importing this module.
Secrets are taken out last, when tracebacks are text already.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from functools import lru_cache

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from dra_driver.config.settings import LogFormat, LogLevel

_SECRET_NAME = re.compile(r"(token|authorization|password|secret|cookie|key_?data)$", re.IGNORECASE)
_BEARER = re.compile(r"(bearer\s+)[^\s'\"]+", re.IGNORECASE)
_REDACTED = "[redacted]"
_FIRST: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure(level: LogLevel, output: LogFormat) -> None:
    """From here on everything that is logged at `level` or above goes to stderr, a line (or JSON object) each."""
    severity = logging.getLevelNamesMapping()[level.upper()]
    last: list[Processor] = [structlog.processors.format_exc_info, redact, _renderer(output)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_FIRST, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(severity)
    structlog.configure(
        processors=[*_FIRST, _add_logger_name, *last],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=_NamedLogger,
    )


class _NamedLogger(structlog.WriteLogger):
    """Writes to stderr; knows the name with which it was asked for, as the standard library's do."""

    def __init__(self, name: str = "") -> None:
        super().__init__(sys.stderr)
        self.name = name


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The event without secrets: what is named like one, at any depth, and every bearer token in a text."""
    return {name: _redacted(name, value) for name, value in event.items()}


def _redacted(name: object, value: object) -> object:
    if isinstance(name, str) and _is_secret(name):
        return _REDACTED
    match value:
        case str():
            return _BEARER.sub(rf"\g<1>{_REDACTED}", value)
        case Mapping():
            return {key: _redacted(key, inner) for key, inner in value.items()}
        case list() | tuple():
            return [_redacted(None, inner) for inner in value]
        case _:
            return value


@lru_cache(maxsize=256)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _add_logger_name(logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if logger.name:
        event["logger"] = logger.name
    return event


def _renderer(output: LogFormat) -> Processor:
    if output == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
