"""Hypothesis judges what a test finds, and not how long it took: a busy machine may stop it for a moment anywhere."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
