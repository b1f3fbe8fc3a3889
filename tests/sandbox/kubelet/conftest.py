from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dra_driver.sandbox.apiserver.local import LocalApi
from dra_driver.sandbox.apiserver.store import Store
from tests.sandbox.kubelet.lab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    """In a folder whose path is short: socket paths are limited to 107 bytes."""
    root = Path(tempfile.mkdtemp(prefix="lab"))
    (root / "cdi").mkdir()
    (root / "plugins_registry").mkdir()
    yield Lab(root=root, api=LocalApi(Store()))
    shutil.rmtree(root)
