"""Events that are said before the API server is reached."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from dra_driver.observe.deferred import DeferredRecorder
from dra_driver.ports import JsonObject, Recorder


class Notebook:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[JsonObject, str, str, str]] = []

    def event(self, regarding: JsonObject, *, level: Any, reason: str, message: str) -> None:
        self.heard.append((regarding, level, reason, message))


def say(recorder: Recorder, message: str) -> None:
    recorder.event({"name": "a"}, level="Normal", reason="DeviceHeld", message=message)


def test_early_events_are_handed_on_in_order() -> None:
    """Nothing is lost between the start and the connection, nothing is said twice, and later Events pass at once."""
    recorder, notebook = DeferredRecorder(), Notebook()
    say(recorder, "one")
    say(recorder, "two")
    recorder.connect(notebook)
    say(recorder, "three")
    assert notebook.heard == [
        ({"name": "a"}, "Normal", "DeviceHeld", message) for message in ("one", "two", "three")
    ]


def test_the_first_hundred_are_kept() -> None:
    """An API server that is away for days costs no memory; what is dropped is in the log."""
    recorder, notebook = DeferredRecorder(), Notebook()
    with capture_logs() as logs:
        for number in range(103):
            say(recorder, str(number))
    recorder.connect(notebook)
    assert [message for *_, message in notebook.heard] == [str(n) for n in range(100)]
    assert [log["message"] for log in logs] == ["100", "101", "102"]
    assert all(log["event"] == "event_dropped" for log in logs)
