"""What a start leaves behind in the process."""

from __future__ import annotations

import gc

from kubelet_plugin.app import COLLECT_AFTER, settle_memory


def test_garbage_is_looked_for_once_a_start_is_over() -> None:
    """A start switches that off; what is there by then is never looked at again."""
    before = gc.get_threshold()
    gc.disable()
    try:
        settle_memory()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold() == COLLECT_AFTER
    finally:
        gc.set_threshold(*before)
        gc.enable()
        gc.unfreeze()
