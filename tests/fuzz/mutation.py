"""Inputs that are nearly right: JSON with a few places changed, and bytes with a few bytes changed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from random import Random
from typing import Any

WORDS = (
    "", "x", "0", "-1", "true", "null", "../../etc/passwd", "/", "..", "a/b", "a/b/c", "a\nb", "\x00", "\x1b[31m",
    "\ud800", "\u00fc\U0001f600", "%s%n", "{}", "a" * 300, "gpu.dra-driver.dev", "gpu.dra-driver.dev/v1alpha1", "GpuConfig",
    "Exclusive", "TimeSlicing", "MPS", "FromClass", "FromClaim", "1e400", "1Gi", "99999999999999999999E",
    "n/nvidia", "gpu-0000-1b-00-0", "gpu-0000-1b-00-0-monitor", "gpu-0000-43-00-0-mig-1g-10gb-6", "intent", "step", "note",
)  # fmt: skip
"""Texts that some reader may treat specially."""

NAMES = (
    "apiVersion", "api_version", "kind", "sharing", "strategy", "metadata", "spec", "status", "allocation", "devices",
    "results", "config", "opaque", "parameters", "requests", "source", "reservedFor", "nodeSelector", "tolerations",
    "adminAccess", "shareID", "consumedCapacity", "uid", "v", "transition", "identities", "grants", "steps", "placement",
    "__class__", "model_config", "", "new", "sharing ", "SHARING",
)  # fmt: skip
"""Keys that readers know, nearly know, or should not know."""

NUMBERS = (0, 1, -1, 2, 7, 2**31, 2**63, -(2**64), 10**400, 0.5, 1e308, math.inf, math.nan)


def mutated(random: Random, value: Any) -> Any:
    """A copy with one to three changes anywhere in it; it may not even be of the same type any more."""
    box = [json.loads(json.dumps(value))]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = list(_places(box))
        container, key = random.choice(places)
        _change(random, container, key)
    return box[0]


def mutated_bytes(random: Random, data: bytes) -> bytes:
    """A copy with a few bytes changed, added, removed or repeated; sometimes bytes that have nothing to do with it."""
    if random.random() < 0.05:
        return random.randbytes(random.randrange(200))
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        place = random.randrange(len(changed) + 1)
        length = random.choice((1, 1, 1, 8, 100))
        match random.randrange(4):
            case 0:
                del changed[place : place + length]
            case 1:
                changed[place:place] = random.randbytes(length)
            case 2:
                changed[place : place + length] = random.randbytes(length)
            case _:
                changed[place:place] = changed[place : place + length]
    return bytes(changed)


def odd_value(random: Random) -> Any:
    """A JSON value that nobody asked for."""
    match random.randrange(8):
        case 0:
            return random.choice((None, True, False, [], {}, [[]], {"": None}))
        case 1 | 2:
            return random.choice(NUMBERS)
        case 3 if random.random() < 0.05:
            return _nested(random.choice((10, 100, 900)))
        case 3:
            return {random.choice(NAMES): random.choice(WORDS)}
        case 4:
            return [random.choice(WORDS)] * random.randrange(3)
        case _:
            return random.choice(WORDS)


def _change(random: Random, container: Any, key: Any) -> None:
    value = container[key]
    match random.randrange(6):
        case 0 if isinstance(container, dict):
            del container[key]
        case 1 if isinstance(container, dict):
            container[random.choice(NAMES)] = container.pop(key)
        case 2 if isinstance(value, dict):
            value[random.choice(NAMES)] = odd_value(random)
        case 2 | 3 if isinstance(value, list):
            value.insert(random.randrange(len(value) + 1), odd_value(random))
        case 3 if isinstance(container, list):
            container.append(json.loads(json.dumps(value)))
        case _:
            container[key] = odd_value(random)


def _places(value: Any, depth: int = 20) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) within, down to that depth."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in entries:
        yield value, key
        if depth and isinstance(inner, (dict, list)):
            yield from _places(inner, depth - 1)


def _nested(depth: int) -> Any:
    value: Any = "deep"
    for level in range(depth):
        value = {"a": value} if level % 2 else [value]
    return value
