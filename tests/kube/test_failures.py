"""How refusals are worded, and how long they ask us to wait."""

from __future__ import annotations

import json

import pytest

from dra_driver.kube.failures import failure_of_response, foreign_text
from dra_driver.model.errors import Unavailable


@pytest.mark.parametrize(
    ("header", "details", "expected"),
    [
        ("5", {}, 5.0),
        (None, {"retryAfterSeconds": 2}, 2.0),
        ("0.5", {"retryAfterSeconds": 2}, 0.5),
        (None, None, None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", {}, None),
        ("-1", {}, None),
        ("inf", {}, None),
        ("nan", "odd", None),
    ],
)
def test_retry_after(header: str | None, details: object, expected: float | None) -> None:
    """The header first, then the Status details; anything that is no number of seconds is no wish."""
    body = json.dumps({"kind": "Status", "details": details}).encode()
    error = failure_of_response("get it", 503, body, retry_after=header)
    assert isinstance(error, Unavailable)
    assert error.retry_after_s == expected


def test_foreign_text_is_one_short_harmless_line() -> None:
    """What others say cannot forge log lines, colour terminals or fill the log."""
    assert foreign_text("a\nb\r\n\tc \x1b[31mred\x00") == "a b c ?[31mred?"
    assert len(foreign_text("x" * 10_000)) == 256


def test_says_how_to_fix_what_can_be_fixed() -> None:
    """Rights and tokens have a remedy, which the message names."""
    assert "RBAC" in str(failure_of_response("get it", 403, b"no"))
    assert "renew" in str(failure_of_response("get it", 401, b""))
