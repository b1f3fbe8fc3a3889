"""How long to wait before trying again."""

from __future__ import annotations

import random


class Backoff:
    """Pauses that double from `first_s` to `most_s`, each shortened by up to half, so that many clients spread out."""

    def __init__(
        self, *, first_s: float = 0.25, most_s: float = 30.0, rng: random.Random | None = None
    ) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._rng = rng or random.Random()  # noqa: S311 -- jitter, not secrets
        self._next_s = first_s

    @property
    def most_s(self) -> float:
        """The longest pause."""
        return self._most_s

    def pause_s(self) -> float:
        """The next pause."""
        pause_s = self._next_s * self._rng.uniform(0.5, 1.0)
        self._next_s = min(self._next_s * 2, self._most_s)
        return pause_s

    def reset(self) -> None:
        """Something worked: the next pause is the first one again."""
        self._next_s = self._first_s
