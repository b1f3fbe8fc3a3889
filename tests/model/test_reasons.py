"""The closed list of reasons."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import kubelet_plugin
from dra_driver.model import errors
from dra_driver.model.errors import DraError
from dra_driver.model.reasons import REASONS, Reason, Regarding, event_table

ROOT = Path(__file__).parents[2]


def plugin_errors() -> list[type[DraError]]:
    """Every error that the node plugin can raise on purpose: ours, and those that its own modules add."""
    for module in pkgutil.walk_packages(kubelet_plugin.__path__, "kubelet_plugin."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return [
        one
        for one in descendants(DraError)
        if one.__module__ == errors.__name__ or one.__module__.startswith("kubelet_plugin")
    ]


def descendants(root: type[DraError]) -> Iterator[type[DraError]]:
    yield root
    for child in root.__subclasses__():
        yield from descendants(child)


def event_words(source: str) -> Iterator[str]:
    """What the calls of `event` in that source give as a constant reason."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            for keyword in node.keywords:
                if (node.func.attr, keyword.arg) == ("event", "reason") and isinstance(
                    keyword.value, ast.Constant
                ):
                    yield str(keyword.value.value)


def test_every_reason_has_an_entry() -> None:
    """Nothing is left to guess, and every word is CamelCase, as Events want it."""
    assert set(REASONS) == set(Reason)
    assert all(re.fullmatch(r"([A-Z][a-z]+)+", reason) for reason in Reason)


@pytest.mark.parametrize("error", plugin_errors(), ids=lambda one: one.__name__)
def test_every_error_has_a_listed_reason(error: type[DraError]) -> None:
    """The list is closed; and what the list says about trying again is what the error says."""
    entry = REASONS[Reason(error.reason)]
    assert entry.retryable is None or entry.retryable == error.retryable


def test_every_event_has_a_listed_reason() -> None:
    """An Event with a made-up word would be in no documentation."""
    sources = [*ROOT.glob("kubelet_plugin/**/*.py"), *ROOT.glob("dra_driver/kube/*.py")]
    words = {word for path in sources for word in event_words(path.read_text())}
    assert words <= set(Reason)
    assert all(REASONS[Reason(word)].regarding is not Regarding.NOTHING for word in words)


def test_a_word_that_is_no_reason_is_a_bug() -> None:
    """Whatever comes, metrics and Events get a listed word."""
    assert Reason.of("DeviceHeld") is Reason.DEVICE_HELD
    assert Reason.of("Whatever") is Reason.INTERNAL_ERROR


def test_documentation_is_current() -> None:
    """docs/user/events.md has the table as it is here."""
    assert event_table() in (ROOT / "docs/user/events.md").read_text()
