import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from dra_driver.config.settings import LogFormat
from dra_driver.observe.log import configure, redact

SECRET = "eyJhbGciOi.JIUzI1NiJ9"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    def read() -> list[str]:
        output = capsys.readouterr()
        assert output.out == "", "stdout is for data"
        return output.err.splitlines()

    return read


def test_json_lines_are_objects_with_time_level_and_logger(lines: Callable[[], list[str]]) -> None:
    """Our lines and those of libraries come out alike, one JSON object each, on stderr."""
    log = structlog.get_logger("kubelet_plugin")
    configure("info", "json")
    log.bind(claim="team/a").info("prepared", devices=2)
    logging.getLogger("aiohttp.client").warning("slow: %s", "api")
    ours, theirs = map(json.loads, lines())
    timestamp = ours.pop("timestamp")
    assert ours == {
        "event": "prepared",
        "claim": "team/a",
        "devices": 2,
        "level": "info",
        "logger": "kubelet_plugin",
    }
    assert timestamp.endswith("Z")
    assert "T" in timestamp
    assert theirs["event"] == "slow: api"
    assert theirs["level"] == "warning"
    assert theirs["logger"] == "aiohttp.client"


def test_text_lines_are_for_people(lines: Callable[[], list[str]]) -> None:
    """Text output has no colours, and its values are readable as they are."""
    configure("info", "text")
    structlog.get_logger("kubelet_plugin").info("prepared", claim="team/a")
    (line,) = lines()
    assert "prepared" in line
    assert "claim=team/a" in line
    assert "\x1b" not in line


def test_what_is_below_the_level_is_dropped(lines: Callable[[], list[str]]) -> None:
    """The level holds for our lines and for libraries'."""
    configure("warning", "json")
    structlog.get_logger("ours").info("quiet")
    logging.getLogger("theirs").info("quiet")
    assert lines() == []


def test_configuring_again_replaces(lines: Callable[[], list[str]]) -> None:
    """The last configuration holds alone: no line is written twice."""
    configure("info", "json")
    configure("info", "text")
    structlog.get_logger("ours").info("once")
    assert len(lines()) == 1


@pytest.mark.parametrize("output", ["json", "text"])
def test_exceptions_are_rendered_without_secrets(
    output: LogFormat, lines: Callable[[], list[str]]
) -> None:
    """A traceback is complete, but a bearer token in it is gone."""
    refusal = ValueError(f"Authorization: Bearer {SECRET} was refused")
    configure("info", output)
    structlog.get_logger("ours").error("failed", exc_info=refusal)
    logging.getLogger("theirs").error("failed", exc_info=refusal)
    text = "\n".join(lines())
    assert text.count("ValueError") == 2
    assert "Bearer [redacted] was refused" in text
    assert SECRET not in text


@pytest.mark.parametrize(
    "event",
    [
        {"token": SECRET},
        {"bearerToken": SECRET},
        {"client_key_data": SECRET},
        {"headers": {"Authorization": SECRET, "Cookie": SECRET}},
        {"users": [{"user": {"token": SECRET}}]},
        {"event": f"sent 'bearer {SECRET}'"},
        {"requests": ({"headers": [f"Bearer {SECRET}"]},)},
    ],
)
def test_secrets_are_redacted_at_any_depth(event: dict[str, object]) -> None:
    """Whatever is named like a secret, or looks like a bearer token, never reaches a log."""
    assert SECRET not in str(redact(None, "info", event))


def test_what_is_no_secret_stays() -> None:
    """Paths of token files are needed to find mistakes; numbers and texts pass untouched."""
    event = {"token_file": "/var/run/token", "devices": 2, "claim": "team/a", "ok": True}
    assert redact(None, "info", dict(event)) == event


def test_importing_configures_nothing() -> None:
    """Until `configure` is called, structlog and logging are as they were; in a process of its own, as other tests' `capture_logs` configures."""
    asked = "import structlog, dra_driver.observe.log; print(structlog.is_configured())"
    answer = subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True)
    assert answer.stdout == b"False\n"


def test_lines_can_be_captured_in_tests() -> None:
    """`structlog.testing.capture_logs` sees what loggers made before it write."""
    configure("info", "json")
    log = structlog.get_logger("ours")
    log.info("before")
    with capture_logs() as captured:
        log.info("seen", claim="team/a")
    assert captured == [{"event": "seen", "claim": "team/a", "log_level": "info"}]
