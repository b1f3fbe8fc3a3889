"""What people may write about broken simulated hardware."""

from __future__ import annotations

import pytest

from dra_driver.config.faults import SimulatedFault, Vocabulary, parse_faults

WORDS = Vocabulary(gpus=["0000:1b:00.0"], calls=["uuid", "name"], errors=["GPU_IS_LOST"])


def test_a_fault_says_what_it_concerns() -> None:
    """Without calls all of them; what is not said is well."""
    content = (
        b'{"0000:1b:00.0": {"error": "GPU_IS_LOST", "calls": ["uuid"]}, "driver": {"hang_s": 3}}'
    )
    faults = parse_faults(content, WORDS)
    assert faults["0000:1b:00.0"] == SimulatedFault(error="GPU_IS_LOST", calls=("uuid",))
    assert [faults["0000:1b:00.0"].concerns(call) for call in WORDS.calls] == [True, False]
    assert [faults["driver"].concerns(call) for call in WORDS.calls] == [True, True]


def test_nothing_written_is_nothing_broken() -> None:
    """An empty file, an empty object."""
    assert parse_faults(b"", WORDS) == parse_faults(b"{}", WORDS) == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"0000:1b:00.1": {}}', ["'0000:1b:00.1' is not one of 0000:1b:00.0, driver"]),
        ('{"0000:1b:00.0": {"eror": "GPU_IS_LOST"}}', ["0000:1b:00.0: eror", "did you mean error"]),
        ('{"0000:1b:00.0": {"error": "LOST"}}', ["error: 'LOST' is not one of GPU_IS_LOST"]),
        ('{"0000:1b:00.0": {"calls": ["uid"]}}', ["calls: 'uid' is not one of name, uuid"]),
        ('{"0000:1b:00.0": {"hang_s": -1}}', ["hang_s: -1"]),
        ('{"0000:1b:00.0": {"hang_s": "long"}}', ["hang_s: 'long'"]),
        ('{"0000:1b:00.0": {"kill": "during"}}', ["kill", "'during'"]),
        ('{"0000:1b:00.0": {"version": "1"}}', ["version", "'driver'"]),
        ('{"MIG-1": {"hang_s": 1}}', ["MIG-1", "can only be busy"]),
        ('{"0000:1b:00.0": 1}', ["0000:1b:00.0: 1 is not an object"]),
        ('{"driver": {}, "driver": {}}', ["'driver' is set twice"]),
        ('{"driver": {"hang_s": 3', ["line 2", "'}'"]),
        ("[]", ["list"]),
    ],
)
def test_what_means_nothing_is_refused(content: str, words: list[str]) -> None:
    """The message names the device, the value and what would be possible."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the words below say which one
        parse_faults(content.encode(), WORDS)
    for word in words:
        assert word in str(refused.value)
